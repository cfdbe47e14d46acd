"""Units at the end of an answer: taken off before the comparison, refused where they contradict the gold's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from curiosft_cli.grading.normalise import FONT
from curiosft_cli.grading.parse import TEXT, split_outside_brackets

# Each unit: its name (a sum of names for a compound), then its other spellings.
# Answers whose names differ contradict each other.
_SPELLINGS = """
mm millimeter millimeters millimetre millimetres; cm centimeter centimeters centimetre centimetres;
m meter meters metre metres; km kilometer kilometers kilometre kilometres; inch inches; ft foot feet; yd yard yards;
mile miles; mg milligram milligrams; g gram grams; kg kilogram kilograms; lb lbs pound pounds; oz ounce ounces;
ml milliliter milliliters; liter liters litre litres; gallon gallons; ms millisecond milliseconds;
s sec secs second seconds; min mins minute minutes; h hr hrs hour hours; day days; week weeks; month months;
year years; dollar dollars usd; cent cents; mile+h mph; km+h kmh kmph; degree degrees; radian radians rad; hz hertz;
joule joules; newton newtons; watt watts; volt volts; mol mole moles; angstrom angstroms
"""
_UNITS = {name: unit.split()[0].split("+") for unit in _SPELLINGS.split(";") for name in unit.split()}
# Only inside \text: elsewhere these may be products of variables.
_ABBREVIATIONS = {"n": ["newton"], "j": ["joule"], "w": ["watt"], "v": ["volt"]}
_HALVES = frozenset({"am", "pm"})
_ABBREVIATIONS |= {name: [name] for name in (*_HALVES, "kn", "kj", "kw", "kv", "ev", "kev", "pa", "kpa", "khz", "mhz")}
_COUNTED = ("units", "unit", "people", "students", "ways", "times", "points", "sides", "square", "sq", "cubic")
_WORD = "|".join(sorted((w for w in [*_UNITS, *_COUNTED] if w.isalpha() and len(w) > 1), key=len, reverse=True))
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d|\{?\\circ\}?))?"
_GROUP = rf"(?:\\mu\s*)?{FONT}\s*\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}{_POWER}"
_JOIN = r"(?:\s|/|\\cdot|\\times|\*|\\[,; ])*"
_QUOTIENT = rf"\\frac\s*\{{\s*{_GROUP}\s*\}}\{{\s*{_GROUP}\s*\}}"
_TEXT_UNIT = re.compile(rf"{_JOIN}(?:{_GROUP}|{_QUOTIENT})(?:{_JOIN}(?:{_GROUP}|{_QUOTIENT}))*$")
_BARE_UNIT = re.compile(
    rf"(?<=[\d}})])\s*(?<![A-Za-z])(?:per\s+)?(?:{_WORD})(?:(?:\s+|\s*/\s*|\s+per\s+)(?:{_WORD}))*{_POWER}$"
)
_LETTER_UNIT = re.compile(rf"(?<=\d)\s*[msghL]{_POWER}$")
# What is counted, in the plural: `7 apples`. Words that change the number are none of it.
_CHANGES = "pair|dozen|score|halve|third|fourth|quarter|fifth|sixth|eighth|tenth|percent|ten|hundred|thousand|million"
_CHANGES += "|billion|trillion|zero|zeroe|root|factorial|power|plu|minu|les|equal|divide|multiple|base|bit|inverse"
_NOUN_UNIT = re.compile(rf"(?<=\d)\s+(?!(?:{_CHANGES})s$)[a-z]{{2,}}s$")
_TEMPERATURE = re.compile(r"\^\s*\{?\\circ\}?\s*(?:\\(?:text|mathrm)\s*\{\s*[CF]\s*\}|[CF])$")
_UNIT_LETTERS = frozenset("msghlLJNWVKACFTH")
_OPEN_END = re.compile(r"(?:[-+=^_,(<>/*]|\\(?:cdot|times|div|pm|le|ge|in|cup|cap|sqrt|frac|sin|cos|tan|ln|log))\s*$")
_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_AMOUNT = re.compile(r"(?:(?:\\times\s*)?10\^\{?-?\d+\}?|[-+\d./()\s]|\\frac\{\d+\}\{\d+\}|\\[,;: ])+")
_PINT_SPELLINGS = (
    (TEXT, r" \1 "),
    (re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"(\1)/(\2)"),
    (re.compile(r"\\cdot|\\times|\\[,;: ]"), " "),
    (re.compile(r"\\mu\s*"), "u"),
    (re.compile(r"\\Omega"), "ohm"),
    (re.compile(r"\bper\b"), "/"),
    (re.compile(r"\s*\^\s*\{?\s*(-?\d)\s*\}?"), r"**(\1)"),
    (re.compile(r"(?<=[\w)])\s+(?=[A-Za-z(])"), "*"),
)
# A power stands right behind a name and has one digit, so no number grows out of bounds.
_PINT_UNIT = re.compile(r"(?=.{1,60}\Z)(?:[A-Za-z]+(?:\*\*\(-?\d\))?|[/()\s]|\*(?!\*))+")


def strip_units(text: str, *, single_letters: bool = False) -> tuple[str, frozenset[str]]:
    """Take the units off each value of a normalised text. Returns the rest and the known units that were there.

    `single_letters` also takes a bare m, s, g, h or L after a digit, and a noun in the plural: only where the gold has
    no variables.
    """
    found: set[str] = set()
    values = [_strip_one(value, single_letters, found) for value in split_outside_brackets(text)]
    return ",".join(values), frozenset(found)


def contradict(units: frozenset[str], gold_units: frozenset[str]) -> bool:
    """Say whether an answer's units are not the gold's. Either may leave them out, but a time's half of the day."""
    return units != gold_units if units and gold_units else not gold_units.isdisjoint(_HALVES)


@dataclass(frozen=True)
class Quantity:
    """A number with a unit.

    Attributes:
        number: as it is written, or "" where a unit stands alone.
        unit: as pint knows it.
        size: of the unit, in base units; 0 where its zero is not theirs.
        dimensions: of the unit.
        is_plain: it can be no product of variables: it has a font command, a quotient or a name of three letters.
        is_spaced: the unit stands apart from the number.
    """

    number: str
    unit: Any
    size: Fraction
    dimensions: Any
    is_plain: bool
    is_spaced: bool


def quantity(text: str) -> Quantity | None:
    """Read a normalised text as a quantity with a unit that pint knows, or None."""
    amount = _AMOUNT.match(text)
    number = amount[0] if amount else ""
    unit = text[len(number) :]
    for pattern, spelling in _PINT_SPELLINGS:
        unit = pattern.sub(spelling, unit.strip())
    known = _base_units(unit) if _PINT_UNIT.fullmatch(unit) else None
    is_plain = TEXT.search(text) is not None or re.search(r"/|[A-Za-z]{3}", unit) is not None
    return Quantity(number, *known, is_plain, number[-1:].isspace()) if known else None


@lru_cache(maxsize=1)
def _registry() -> Any:
    """Pint's units (0.5 s)."""
    import pint

    return pint.UnitRegistry(non_int_type=Fraction)


@lru_cache(maxsize=1024)
def _base_units(unit: str) -> tuple[Any, Fraction, Any] | None:
    """Return (unit, size in base units, dimensions), or None of a text that is no unit. An offset has the size 0."""
    try:
        units = _registry().parse_units(unit)
        zero, base = (_registry().Quantity(number, units).to_base_units() for number in (0, 1))
    except Exception:  # what pint makes of a text that is no unit
        return None
    return units, Fraction(0 if zero.magnitude else base.magnitude), base.dimensionality


def variables(text: str) -> set[str]:
    """Return the single letters that stand for something in a normalised text."""
    return set(_LETTER.findall(TEXT.sub("", text)))


def _strip_one(value: str, single_letters: bool, found: set[str]) -> str:
    match = _TEXT_UNIT.search(value) or _BARE_UNIT.search(value) or _TEMPERATURE.search(value)
    if match is None and single_letters:
        match = _LETTER_UNIT.search(value) or _NOUN_UNIT.search(value)
    core = value[: match.start()] if match else value
    if match is None or not core.strip() or _OPEN_END.search(core):
        return value
    names = re.findall(r"[A-Za-z]+", re.sub(r"\\[A-Za-z]+|\\circ", " ", match[0]))
    if match.re is _TEXT_UNIT and any(n in ("or", "and") or (len(n) == 1 and n not in _UNIT_LETTERS) for n in names):
        return value
    known = _UNITS | _ABBREVIATIONS if match.re is _TEXT_UNIT else _UNITS
    found.update(part for name in names for part in known.get(name.lower(), ()))
    return core
