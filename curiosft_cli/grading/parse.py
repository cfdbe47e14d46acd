"""Ways to read a normalised answer without algebra: words, a list, a numeral with a base, a number, assignments."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from curiosft_cli.grading.normalise import FONT, GAP, is_enclosed, marks, squeeze

TEXT = re.compile(rf"{FONT}\s*\{{([^{{}}]*)\}}")
_CAPITALS = re.compile(r"(?<![A-Za-z\\])(?:[A-Z][a-z]+|[A-Z]{4,}|YES|NO)(?![A-Za-z])")
_WORDS = re.compile(r"[a-z][a-z'-]*(?: [a-z][a-z'-]*)*")
_LONG_WORD = re.compile(r"[a-z]{4}|\b(?:yes|no)\b")
_BASED = re.compile(r"\(?([0-9A-Z]+)\)?(?:_(?:\{\(?(?:BASE)?(\d{1,2}|[A-Z]+)\)?\}|(\d))|\(?BASE(\d{1,2})\)?)")
_NAMES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_BASE_NAMES = {name: value for value, name in enumerate(_NAMES.upper().split())}
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN = re.compile(
    rf"(?P<open>\()?(?P<sign>[+-]?)(?:\\frac\{{(?P<top>{_NUMBER})\}}\{{(?P<low>{_NUMBER})\}}"
    rf"|(?:(?P<a>\d+(?:\.\d*)?|\.\d+)(?:/(?P<b>\d+))?)(?:\\times10\^(?:\{{(?P<power>[+-]?\d{{1,4}})\}}|(?P<digit>\d)))?"
    r"|10\^(?:\{(?P<alone>[+-]?\d{1,4})\}|(?P<one>\d)))(?:\\%)?(?(open)\))"
)
_MULTIPLE = re.compile(r"(.*?)(\\pi|\\sqrt\{(\d+)\})(\}\{\d+\})?")
_SEPARATOR = re.compile(r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;")
_SIMPLE_NAME = r"(?:[A-Za-z]|\\[a-z]+(?:\s*\{\w\})?)(?:_(?:\w|\{\w+\}))?(?:\([^()=]*\))?"
_NAME = rf"{_SIMPLE_NAME}|\|?(?:\\(?:angle|overline)\s*)?\{{?[A-Z]{{2,3}}\}}?\|?"
NAME = re.compile(_NAME)  # `x_1`, `f(2)` or `\angle ABC`
_NAMED = re.compile(rf"{GAP}(?:({_NAME})\s*(?:=|\\in\s*(?=[(\[]|\\(?:left|\{{)))|([A-Za-z][A-Za-z ]*):)\s*([^<>]+)")
_TUPLE_NAMES = re.compile(r"\s*\(([^()=,]+(?:,[^()=,]+)+)\)\s*=\s*(?=(?:\\left\s*)?\()")
_COUNTED = re.compile(r"([^A-Za-z]*\d[^A-Za-z]*)(?<=\s)([A-Za-z](?:[A-Za-z ]+|(?<=\s\s\w)))")
BRACKETED = re.compile(r"\s*(?:\\left\s*)?(\(|\\\{)(.*?)(?:\\right\s*)?(?:\)|\\\})\s*", re.DOTALL)

_RELATION = re.compile(r"\\(?:ne|le|ge)(?![A-Za-z])|[<>]")
_REAL = r"\w\s*\\in\s*\\mathbb\s*\{R\}"
_BUILDER = re.compile(
    rf"(?s)\\\{{\s*(?:{_REAL}|\w|\((?:\w,?\s*)+\))\s*(?::|\\mid(?![A-Za-z])|\|)(.*?)\\\}}|,\s*{_REAL}|{_REAL}\s*,"
)
_OR = re.compile(r"\\text\s*\{\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee|cup)(?![A-Za-z])")
_AND = re.compile(r"\\(?:land|wedge)(?![A-Za-z])")


def words(text: str) -> str | None:
    """Return an answer in words (two letters or more) as it is compared, or None."""
    plain = " ".join(re.sub(r"\\ |[,.!?\"]", " ", plain_text(text)).split())
    plain = re.sub(r"^(?:[Aa]n?|the)\s+", "", plain)
    return plain if len(plain) > 1 and _WORDS.fullmatch(plain) and (plain != text or _LONG_WORD.search(plain)) else None


def plain_text(text: str) -> str:
    """Return a text without font commands, its capitalised words in lower case. `kT` is a product, and stays."""
    for _ in range(3):
        text = TEXT.sub(r" \1 ", text)
    return _CAPITALS.sub(lambda m: m[0].lower(), text)


def split_outside_brackets(text: str, sign: str = ",") -> list[str]:
    """Split a normalised text at the commas outside every bracket: `(1,2),(3,4)` has two values."""
    places = [mark.start() for mark, depth in marks(text) if mark[0] == sign and depth == 0]
    return [text[start + 1 : end] for start, end in zip([-1, *places], [*places, len(text)], strict=True)]


def listed_values(text: str) -> list[str]:
    """Split a normalised text at its commas, semicolons, "and" and "or" outside every bracket."""
    return [value for value in split_outside_brackets(_SEPARATOR.sub(",", text)) if value.strip()]


def numeral(text: str) -> tuple[str, int | None]:
    """Return (digits, base) of `1101_2`, `(1101)_{2}`, `1101_{\\text{two}}` or `1101 \\text{ (base 2)}`.

    A text without a base is (text, None); with digits that the base does not have, (text, base), which equals no other.
    """
    flat = squeeze(TEXT.sub(r"\1", text)).upper()
    match = _BASED.fullmatch(flat)
    name = (match[2] or match[3] or match[4]) if match else "0"
    base = int(name) if name.isdigit() else _BASE_NAMES.get(name, 0)
    if match and base > 1 and all(int(digit, 36) < base for digit in match[1]):
        return match[1].lstrip("0"), base
    return flat.lstrip("0"), base if match and not match[1].isalpha() else None


class Number(NamedTuple):
    """A number: the value times pi with the kind "pi"; the root of the value, with its sign, with the kind "root".

    `exact` is False when a decimal point occurs, so that rounding may be meant.
    """

    value: Fraction
    exact: bool
    kind: str = ""


@lru_cache(maxsize=8192)
def plain_number(text: str) -> Number | None:
    """Return an integer, decimal, fraction of numbers or a \\times 10^{b}, or a multiple of pi or a root, or None.

    `3\\sqrt{2}` is the root of 18, `-\\frac{\\sqrt{2}}{2}` that of -1/2. A percent sign is ignored.
    """
    flat = squeeze(text)
    multiple = _MULTIPLE.fullmatch(flat)
    if multiple:
        one = "1" if multiple[1] in ("", "-", r"\frac{", r"-\frac{") else ""
        flat = f"{multiple[1]}{one}{multiple[4] or ''}"
    match = _PLAIN.fullmatch(flat)
    if not match or (multiple and ("." in flat or "%" in text)):
        return None
    power = match["power"] or match["digit"] or match["alone"] or match["one"]
    top, low = Fraction(match["top"] or match["a"] or 1), Fraction(match["low"] or match["b"] or 1)
    if low == 0:
        return None
    value = top / low * Fraction(10) ** int(power or 0) * (-1 if match["sign"] == "-" else 1)
    if not multiple or not multiple[3]:
        return Number(value, "." not in flat, "pi" if multiple else "")
    square = value * abs(value) * int(multiple[3])
    root = Fraction(math.isqrt(abs(square.numerator)), math.isqrt(square.denominator))
    return Number(root if square > 0 else -root, True) if root * root == abs(square) else Number(square, True, "root")


def collection(text: str) -> tuple[str, list[str]] | None:
    """Return (bracket, values) of two or more values: "(" for a tuple, "{" for a set, "" for a bare list; or None."""
    inner = BRACKETED.fullmatch(text)
    inner = inner if inner and is_enclosed(squeeze(text)) else None
    values = [value.strip() for value in listed_values(inner[2] if inner else text)]
    if len(values) == 1 or not (inner and inner[1] == "("):
        values = [way for value in values for way in both_signs(value)]
    return (inner[1][-1] if inner else "", values) if len(values) > 1 else None


def both_signs(text: str, most: int = 3) -> list[str]:
    """Return the values of a text with `\\pm`: two, with `\\mp` for the other sign, or each sign of several."""
    if 1 < text.count(r"\pm") <= most and r"\mp" not in text:
        return [way for sign in "+-" for way in both_signs(text.replace(r"\pm", sign, 1))]
    ways = [text.replace(r"\pm", one).replace(r"\mp", other) for one, other in ("+-", "-+")]
    return [text] if ways[0] == text else ways


def named_values(text: str) -> list[dict[str, str]]:
    """Return the values of a text by name, or none of them when one has no name.

    `x=2, y=3` and `(x,y)=(2,3)` are [{x: 2, y: 3}]; `3 \\text{ apples}, 4 \\text{ pears}` has nouns for names; a name
    that comes again starts the next group: `p=5, q=2; p=7, q=2`. One value alone has a name only before an equals sign.
    """
    if tuple_names := _TUPLE_NAMES.match(text):
        names = [squeeze(name) for name in tuple_names[1].split(",")]
        tuples = [BRACKETED.fullmatch(part) for part in listed_values(_TUPLE_NAMES.sub("", text))]
        rows = [split_outside_brackets(found[2]) if found else [] for found in tuples]
        return [dict(zip(names, row, strict=False)) for row in rows if all(len(one) == len(names) for one in rows)]
    groups: list[dict[str, str]] = [{}]
    plain = text if "=" in TEXT.sub("", text) else TEXT.sub(r"  \1 ", text)
    for part in listed_values(plain):
        named, counted = _NAMED.fullmatch(part.strip()), _COUNTED.fullmatch(part.strip())
        if named:
            name, value = squeeze(named[1] or named[2]).strip("|"), named[3].strip()
        elif counted:
            name, value = counted[2].lower().rstrip("s"), counted[1].strip()
        else:
            return []
        if name in groups[-1]:
            groups.append({})
        groups[-1][name] = value
    sizes = {frozenset(group) for group in groups}
    return groups if len(sizes) == 1 and ("=" in plain or r"\in" in plain or len(groups[0]) > 1) else []


def order_of_name(name: str) -> list[str]:
    """Return a key that puts x before y, and `x_2` before `x_{10}`; words keep the order in which they are written."""
    if not re.fullmatch(_SIMPLE_NAME, name):
        return []
    return [part.zfill(9) if part.isdigit() else part for part in re.findall(r"\d+|\D+", re.sub(r"[{}\\_]", "", name))]


def in_order(group: dict[str, str], names: Iterable[str], is_tuple: bool) -> str:
    """Write named values without their names: as a tuple, or as a list where `x_1` and `x_2` have no order."""
    values = ",".join(group[name] for name in names)
    indexed = all("_" in name for name in group) and len({name.partition("_")[0] for name in group}) == 1
    return values if len(group) == 1 or (indexed and not is_tuple) else f"({values})"


def alternatives(text: str, most: int = 20) -> list[str]:
    """Split a condition at "or"; none when a text has no relation, or more than `most`.

    Set-builders lose their braces, `\\land` is a comma, and `x \\ne \\pm 2` is two relations.
    """
    if not 0 < len(_RELATION.findall(text)) <= most:
        return []
    parts = _OR.split(_AND.sub(",", _BUILDER.sub(lambda m: m[1] or "", text)))
    return [",".join(both_signs(part)) for part in parts]
