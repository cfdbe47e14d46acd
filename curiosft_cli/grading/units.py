"""Units at the end of an answer, as pint knows them: taken off before the comparison, and compared on their own."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from curiosft_cli.grading.normalise import CHANGES, FONT, GAP
from curiosft_cli.grading.parse import TEXT, split_outside_brackets

_DEFINITIONS = ("dollar = [money] = _ = usd = USD", "cent = dollar / 100", "@alias kilometer_per_hour = kmh = kmph")
_HALVES = frozenset({"am", "pm"})
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d|\{?\\circ\}?))?"
_GROUP = rf"(?:\\mu\s*)?{FONT}\s*\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}{_POWER}"
_JOIN = r"(?:\s|/|\\cdot|\\times|\*|\\[,; ])*"
_QUOTIENT = rf"\\frac\s*\{{\s*{_GROUP}\s*\}}\{{\s*{_GROUP}\s*\}}"
_TEXT_UNIT = re.compile(rf"{_JOIN}(?:{_GROUP}|{_QUOTIENT})(?:{_JOIN}(?:{_GROUP}|{_QUOTIENT}))*$")
_TEMPERATURE = re.compile(r"\^\s*\{?\\circ\}?\s*(?:\\(?:text|mathrm)\s*\{\s*[CF]\s*\}|[CF])$")
_BARE_UNIT = re.compile(rf"(?:\A|(?<=[\d}})])){GAP}(?<![A-Za-z])[A-Za-z]+(?:(?:\s+| *[/*] *|\^)[A-Za-z]+|{_POWER})*$")
# A bare unit of these names is none of variables.
_NAME = re.compile(r"[A-Za-z]{3,}|[cmk]m|[mk]g|m[lLs]|ft|yd|lb|oz|hr|Hz")
_LETTERS = frozenset("msghlLJNWVKACFTH")
_BARE_LETTER = re.compile(r"[\s\\,;]*[msghL]|[\s\\,;]+[NJWV]")
# What is counted, in the plural: `7 apples`.
_NOUN_UNIT = re.compile(rf"(?<=\d)\s+(?:(?:square|cubic|sq)\s+)?(?!(?:{CHANGES})$)(?:[a-z]{{2,}}s|people)$")
_OPEN_END = re.compile(r"(?:[-+=^_,(<>/*]|\\(?:cdot|times|div|pm|le|ge|in|cup|cap|sqrt|frac|sin|cos|tan|ln|log))\s*$")
_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_PINT_SPELLINGS = (
    (TEXT, r" \1 "),
    (re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"(\1)/(\2)"),
    (re.compile(r"\\cdot|\\times|\\[,;: ]"), " "),
    (re.compile(r"^per\b"), "1 /"),
    (re.compile(r"\\mu\s*"), "u"),
    (re.compile(r"\\Omega"), "ohm"),
    (re.compile(r"\^\s*\{?\\circ\}?\s*(?=[CF])"), "deg"),
    (re.compile(r"\s*\^\s*\{?\s*(-?\d)\s*\}?"), r"**(\1)"),
)
# A power stands right behind a name and has one digit, so no number grows out of bounds.
_PINT_UNIT = re.compile(
    r"(?=.{1,60}\Z)(?!.*\b(?:unit|point|count|bit)s?\b)(?:1 / )?(?:[A-Za-z]+(?:\*\*\(-?\d\))?|[/()\s]|\*(?!\*))+"
)


@lru_cache(maxsize=8192)
def strip_units(text: str, *, letters: bool = False) -> tuple[str, frozenset[Any]]:
    """Take the units off each value of a normalised text. Returns the rest and the known units that were there.

    `letters` also takes what may be variables elsewhere: `m` or `m/s` after a digit.
    """
    found: set[Any] = set()
    values = [_strip_one(value, letters, found) for value in split_outside_brackets(text)]
    return ",".join(values), frozenset(found)


def without_units(answer: str, gold: str) -> tuple[str, str, Fraction | None]:
    """Return both texts without units, and how many of the gold's unit the answer's is; None where they contradict.

    Either may leave its units out, but a gold's half of the day. Units alone must be the same.
    """
    gold_core, gold_units = strip_units(gold, letters=True)
    core, units = strip_units(answer, letters=not variables(gold_core))
    if not units:
        gold_core, gold_units = strip_units(gold)
    if not core.strip() and not gold_core.strip():
        return "", "", Fraction(1) if units == gold_units else None
    if not core.strip() or not gold_core.strip():
        return answer, gold, Fraction(1)
    if units == gold_units or not gold_units or not (units or gold_units & _HALVES):
        return core, gold_core, Fraction(1)
    return core, gold_core, _ratio(*units, *gold_units) if len(units) == len(gold_units) == 1 else None


def variables(text: str) -> set[str]:
    """Return the single letters that stand for something in a normalised text."""
    return set(_LETTER.findall(TEXT.sub("", text)))


def _strip_one(value: str, letters: bool, found: set[Any]) -> str:
    match = _TEXT_UNIT.search(value) or _TEMPERATURE.search(value) or _BARE_UNIT.search(value)
    if match is None:
        return value
    core, unit = value[: match.start()], match[0]
    for pattern, spelling in _PINT_SPELLINGS:
        unit = pattern.sub(spelling, unit.strip())
    names = re.findall(r"[A-Za-z]+", unit)
    known = unit.lower() if unit.lower() in _HALVES else _known(unit) or _known(unit.lower())
    if _OPEN_END.search(core) or (not core.strip() and known is None):
        return value
    if match.re is _TEXT_UNIT and any(n in ("or", "and") or (len(n) == 1 and n not in _LETTERS) for n in names):
        return value
    if match.re is _BARE_UNIT and not _NOUN_UNIT.search(value):
        is_named = all(_NAME.fullmatch(n) or (letters and n in _LETTERS and not variables(core)) for n in names)
        if not known or not is_named or not (_NAME.search(unit) or len(names) > 1 or _BARE_LETTER.match(match[0])):
            return value
    found.update(filter(None, [known]))
    return core


@lru_cache(maxsize=1)
def _registry() -> Any:
    """Pint's units (0.5 s)."""
    import pint

    registry = pint.UnitRegistry(non_int_type=Fraction)
    registry.load_definitions(_DEFINITIONS)
    return registry


@lru_cache(maxsize=1024)
def _known(unit: str) -> Any | None:
    """Return a unit of pint's, or None of a text that is none."""
    try:
        return _registry().parse_units(unit) if _PINT_UNIT.fullmatch(unit) else None
    except Exception:  # what pint makes of a text that is no unit
        return None


def _ratio(unit: Any, other: Any) -> Fraction | None:
    """Return how many of another unit one is, or None where they are not of one kind, or one has a zero of its own."""
    try:
        zero, one = (_registry().Quantity(number, unit).to(other).magnitude for number in (0, 1))
    except Exception:  # of another dimension
        return None
    return None if zero else Fraction(one)
