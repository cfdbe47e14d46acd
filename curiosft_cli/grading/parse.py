"""Ways to read a normalised answer without algebra: words, a list, a numeral with a base, a number, assignments."""

from __future__ import annotations

import re
from fractions import Fraction

from curiosft_cli.grading.normalise import squeeze

TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|sc)?|math(?:bf|it|rm|sf|tt|normal)|mbox|hbox|operatorname|boldsymbol)\*?"
    r"\s*\{([^{}]*)\}"
)
_ARTICLE = re.compile(r"^(?:an?|the)\s+")
_WORDS = re.compile(r"[a-z][a-z'-]*(?:[\s,]+[a-z][a-z'-]*)*")
_OPTION = re.compile(r"\\text(?:bf)?\s*\{\s*\(([A-Z])\)\s*\}")
_NAMED_OPTION = re.compile(r"\(([A-Z])\)(?:\s.*)?|([A-Z])")
_BASED = re.compile(
    r"\(?([0-9A-Za-z]+)\)?(?:_(?:\{\(?(?:base)?(\d{1,2}|[a-z]+)\)?\}|(\d))|\(?base(\d{1,2})\)?)", re.IGNORECASE
)
_BASE_NAMES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
               "eleven": 11, "twelve": 12, "sixteen": 16}  # fmt: skip
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN = re.compile(
    rf"(?P<sign>[+-]?)(?:\\frac\{{(?P<top>{_NUMBER})\}}\{{(?P<low>{_NUMBER})\}}"
    rf"|(?:(?P<a>\d+(?:\.\d*)?|\.\d+)(?:/(?P<b>\d+))?)(?:\\times10\^(?:\{{(?P<power>[+-]?\d{{1,4}})\}}|(?P<digit>\d)))?"
    r"|10\^(?:\{(?P<alone>[+-]?\d{1,4})\}|(?P<one>\d)))(?:\\%)?"
)
_IRRATIONAL = r"\\pi|\\sqrt\{\d+\}"
_MULTIPLE = re.compile(
    rf"(?P<sign>-?)(?:(?P<whole>\d*)|\\frac\{{(?P<top>\d*)(?P<inner>{_IRRATIONAL})?\}}\{{(?P<low>\d+)\}})"
    rf"(?P<outer>{_IRRATIONAL})?"
)
_TUPLE = re.compile(r"\((.*)\)")
_MARK = re.compile(r"\\.|[()\[\]{},]", re.DOTALL)
_SEPARATOR = re.compile(r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;")
_ASSIGNMENT = re.compile(r"(?:\s|\\[,; ])*([A-Za-z](?:_(?:\w|\{\w+\}))?)\s*=\s*([^=<>]+)")


def words(text: str) -> str | None:
    """Return an answer in words (two letters or more) in lower case without font commands and article, or None."""
    plain = text
    for _ in range(3):
        plain = TEXT.sub(r" \1 ", plain)
    plain = " ".join(plain.replace("\\ ", " ").split()).strip(" .").lower()
    plain = _ARTICLE.sub("", plain)
    return plain if len(plain) > 1 and _WORDS.fullmatch(plain) else None


def option(gold: str) -> str | None:
    """Return C for a gold that is the option `\\text{(C)}`, or None."""
    match = _OPTION.fullmatch(gold)
    return match[1] if match else None


def named_option(answer: str) -> str | None:
    """Return C for `C`, `(C)`, `\\textbf{(C)} 12`, or None."""
    match = _NAMED_OPTION.fullmatch(TEXT.sub(r"\1 ", answer).replace("\\ ", " ").strip(" ."))
    return (match[1] or match[2]) if match else None


def top_level_values(text: str) -> list[str]:
    """Split a normalised text at the commas outside every bracket: `(1,2),(3,4)` has two values."""
    values, depth, start = [], 0, 0
    for mark in _MARK.finditer(text):
        if mark[0][-1] in "([{":
            depth += 1
        elif mark[0][-1] in ")]}":
            depth -= 1
        elif mark[0] == "," and depth == 0:
            values.append(text[start : mark.start()])
            start = mark.end()
    return [*values, text[start:]]


def listed_values(text: str) -> list[str]:
    """Split a normalised text at its commas, semicolons, "and" and "or" outside every bracket."""
    return [value for value in top_level_values(_SEPARATOR.sub(",", text)) if value.strip()]


def numeral_with_base(text: str) -> tuple[str, int] | None:
    """Return (digits, base) of `1101_2`, `(1101)_{2}`, `1101_{\\text{two}}` or `1101 \\text{ (base 2)}`, or None.

    Digits that the base does not have are kept: such a numeral equals no other.
    """
    match = _BASED.fullmatch(squeeze(TEXT.sub(r"\1", text)))
    if not match:
        return None
    name = (match[2] or match[3] or match[4]).lower()
    base = int(name) if name.isdigit() else _BASE_NAMES.get(name)
    if base is None or not (any(c.isdigit() for c in match[1]) or has_digits_of(match[1], base)):
        return None
    return match[1].lstrip("0").upper(), base


def flat_text(text: str) -> str:
    """Return a normalised text without font commands, white space and case."""
    return squeeze(TEXT.sub(r"\1", text)).lower()


def has_digits_of(digits: str, base: int) -> bool:
    """Say whether every character is a digit of the base: `BC` is of 16, `X` is not."""
    return base > 1 and all(int(digit, 36) < base for digit in digits)


def plain_number(text: str) -> tuple[Fraction, bool] | None:
    """Return (value, exact) of an integer, decimal, fraction of numbers or a \\times 10^{b}, or None.

    A percent sign is ignored. `exact` is False when a decimal point occurs, so that rounding may be meant.
    """
    match = _PLAIN.fullmatch(squeeze(text))
    if not match:
        return None
    power = match["power"] or match["digit"] or match["alone"] or match["one"]
    top, low = Fraction(match["top"] or match["a"] or 1), Fraction(match["low"] or match["b"] or 1)
    if low == 0:
        return None
    value = top / low * Fraction(10) ** int(power or 0)
    return (-value if match["sign"] == "-" else value), "." not in match[0]


def exact_multiple(text: str) -> tuple[str, Fraction] | None:
    """Return ("pi", q) for a rational multiple q of pi, or ("root", s) for the root of |s| with the sign of s, or None.

    `3\\sqrt{2}` is ("root", 18), `-\\frac{\\sqrt{2}}{2}` is ("root", -1/2), and `2` is ("root", 4).
    """
    match = _MULTIPLE.fullmatch(squeeze(text))
    if not match or (match["inner"] and match["outer"]) or not (match["whole"] or match["outer"] or match["low"]):
        return None
    irrational = match["inner"] or match["outer"] or ""
    if not (match["whole"] or match["top"] or irrational) or (match["low"] and not int(match["low"])):
        return None
    factor = Fraction(int(match["whole"] or match["top"] or 1), int(match["low"] or 1))
    sign = -1 if match["sign"] else 1
    if irrational == r"\pi":
        return "pi", sign * factor
    return "root", sign * factor**2 * int(irrational[6:-1] or 1)


def number_list(text: str) -> tuple[bool, list[Fraction]] | None:
    """Return (is a tuple, its values) for two or more exact numbers in round brackets or in a bare list, or None."""
    squeezed = squeeze(text)
    inner = _TUPLE.fullmatch(squeezed)
    numbers = [plain_number(value) for value in top_level_values(inner[1] if inner else squeezed)]
    exact = [number[0] for number in numbers if number and number[1]]
    return (inner is not None, exact) if len(numbers) == len(exact) > 1 and "%" not in squeezed else None


def without_variables(answer: str) -> str:
    """Turn a list of assignments into its values: `x=2, y=3` into `(2,3)` by name, `x=1 \\text{ or } x=2` into `1,2`.

    Anything else comes back as it is.
    """
    parts = listed_values(answer)
    pairs = [_ASSIGNMENT.fullmatch(part) for part in parts]
    found = [(pair[1], pair[2].strip()) for pair in pairs if pair]
    if len(found) < 2 or len(found) != len(pairs):
        return answer
    names = [name for name, _ in found]
    if len(set(names)) == 1:
        return ",".join(value for _, value in found)
    return f"({','.join(value for _, value in sorted(found))})" if len(set(names)) == len(names) else answer
