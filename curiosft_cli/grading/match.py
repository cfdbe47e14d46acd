"""Does a free-form answer say the same as the gold? Cheap exact tests first, Math-Verify last."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from curiosft_cli.data.records import GradeStatus
from curiosft_cli.grading import symbolic
from curiosft_cli.grading.choices import LETTERS, named_letter
from curiosft_cli.grading.normalise import has_bracketed_thousands, marks, normalise, squeeze
from curiosft_cli.grading.parse import (
    BRACKETED,
    TEXT,
    collection,
    condition,
    exact_multiple,
    flat_text,
    has_digits_of,
    in_order,
    named_values,
    numeral_with_base,
    option,
    order_of_name,
    plain_number,
    top_level_values,
    words,
)
from curiosft_cli.grading.units import contradict, has_variables, strip_units

Comparison = tuple[bool, GradeStatus]
Number = tuple[Fraction, bool]

MAX_CHARACTERS = 4000
MAX_DIGITS = 1000
MAX_DEPTH = 50

_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
_FORBIDDEN = re.compile(
    r"\\(?:not|notin|nequiv|input|include|write|openin|openout|read|immediate|catcode|def|special|usepackage"
    r"|newcommand)(?![A-Za-z])|\\write18|--"
)
# An answer with one of these says more, or less, than a gold without it; Math-Verify reads only the last part.
_NOT_ADDED = re.compile(
    r"\\[lcv]?dots(?![A-Za-z])|\.\.\.|\\ne(?![A-Za-z])"
    r"|\\(?:to|(?:long)?(?:left)?(?:right)arrow|(?:Long)?(?:Left)?Rightarrow|implies|iff|mapsto|equiv|sim|cong|propto"
    r"|v?ee|wedge|lor|land|x?cancel|sout|phantom|stackrel|overset|underset)(?![A-Za-z])"
    r"|\b(?:not|or (?:more|less|fewer|greater|higher|lower|above|below|so)|at (?:least|most)"
    r"|(?:more|less|fewer|greater|larger|smaller|other) than|except|wrong|incorrect|squared|cubed|factorial|dozen"
    r"|half|over|choose|either)\b"
)
_INEQUALITY = re.compile(r"\s*(?:[<>]|\\(?:le|ge|lt|gt)(?![A-Za-z]))")
_CELLS = re.compile(r"&|\\\\")
_OPENED = re.compile(r"\s*(?:\\left\s*)?[(\[]")
_INDEX = re.compile(r"_\s*\{[^{}]*(?:=|\\to)[^{}]*\}")
_SIDES = re.compile(r"(?<![\\<>:])=")
_NUMERIC = re.compile(
    r"(?:[\d.+\-*/^_!%|(){}\[\]\s]|\\(?:frac|sqrt|pi|cdot|times|div|left|right|circ|binom|ln|log|sin|cos|tan|exp"
    r"|arc(?:sin|cos|tan)|%|[,;: {}]))+"
)
_VALUE = re.compile(r"\d|\\pi")
_COMPOUND = re.compile(r"[,;<>]|\\(?:text|mbox|le|ge|in|cup|cap)(?![A-Za-z])|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_IN_BRACKETS = re.compile(r"^\s*(?:\\left)?\(([\d.\s]+)(?:\\right)?\)\s*$")
_ROUNDING = 10**6
_RELATIVE = 1000


def match_math(answer: str, gold: str, timeout_s: float = symbolic.LIBRARY_TIMEOUT_S) -> Comparison:
    """Return whether a free-form answer (the inside of a box) equals the gold, and how the comparison went.

    Never raises on any text; must run in the main thread.
    """
    if len(answer) > 2 * MAX_CHARACTERS:
        return False, "ok"
    ours, clean = normalise(answer), normalise(gold)
    listed, listed_gold = normalise(answer, thousands=False), normalise(gold, thousands=False)
    if has_bracketed_thousands(listed_gold):
        return _match(listed, listed_gold, timeout_s)  # a point: 5177 is not (5,177)
    verdict = _match(ours, clean, timeout_s)
    if verdict[0] or (listed, listed_gold) == (ours, clean):
        return verdict
    may_list = len(top_level_values(clean)) > 1 or has_bracketed_thousands(listed)
    return _match(listed, listed_gold, timeout_s) if may_list else verdict


def same_spelling_key(answer: str) -> tuple[str, ...]:
    """Return a key that is equal for two answers which are the same number, or the same text when printed."""
    if len(answer) > MAX_CHARACTERS:
        return ("text", answer)
    text = normalise(answer)
    number = plain_number(text) if is_within_limits(text) else None
    return ("number", str(number[0])) if number else ("text", squeeze(text))


def is_within_limits(text: str) -> bool:
    """Say whether a text is small enough to be handed to a parser: length, run of digits, bracket depth."""
    if len(text) > MAX_CHARACTERS or _LONG_NUMBER.search(text):
        return False
    return all(depth <= MAX_DEPTH for _, depth in marks(text))


@lru_cache(maxsize=8192)
def _match(answer: str, gold: str, timeout_s: float) -> Comparison:
    if not is_within_limits(answer):
        return False, "ok"
    if squeeze(answer) == squeeze(gold) != "":
        return True, "ok"
    if _FORBIDDEN.search(answer):
        return False, "ok"
    if (verdict := _match_named(answer, gold, timeout_s)) is not None:
        return verdict
    for decide in (_match_words, _match_option):
        decided = decide(answer, gold)
        if decided is not None:
            return decided, "ok"
    if condition(answer) or condition(gold):
        return symbolic.same_condition(gold, answer, timeout_s)
    for decide in (_refuse, _match_base):
        decided = decide(answer, gold)
        if decided is not None:
            return decided, "ok"
    gold_core, gold_units = strip_units(gold)
    core, units = strip_units(answer, single_letters=not has_variables(gold_core))
    if contradict(units, gold_units):
        return False, "ok"
    if (same := _match_plain(core, gold_core)) is not None:
        return same, "ok"
    if (verdict := _match_collection(core, gold_core, timeout_s)) is not None:
        return verdict
    if "=" in core and "=" not in gold_core:
        return _match_equation(core, gold_core, timeout_s)
    return _match_value(core, gold_core, timeout_s)


def _match_words(answer: str, gold: str) -> bool | None:
    """Compare words with words; undecided when the gold is not in words, or may be a product of variables."""
    gold_words = words(gold)
    is_text = TEXT.search(gold) is not None
    ours, theirs = flat_text(answer), flat_text(gold)
    if ours == theirs or (is_text and ours.lower() == theirs.lower()) or (gold_words and words(answer) == gold_words):
        return True
    return False if gold_words and is_text else None


def _match_option(answer: str, gold: str) -> bool | None:
    """Compare letters where the gold is an option such as `\\text{(C)}`."""
    letter = option(gold)
    return None if letter is None else named_letter(answer, len(LETTERS)) == letter


def _refuse(answer: str, gold: str) -> bool | None:
    """Refuse what Math-Verify would read only in part."""
    if not set(_NOT_ADDED.findall(_INDEX.sub("", answer))) <= set(_NOT_ADDED.findall(gold)):
        return False
    if _INEQUALITY.match(answer) and not _INEQUALITY.match(gold):
        return False
    if _CELLS.search(answer) and r"\begin" not in answer:
        return False
    return None


def _match_base(answer: str, gold: str) -> bool | None:
    """Compare numerals with a base by digits and base; the gold alone may leave the base out, or have it alone."""
    based, gold_based = numeral_with_base(answer), numeral_with_base(gold)
    if based is None and gold_based is None:
        return None
    digits, base = based or (squeeze(answer).lstrip("0").upper(), None)
    gold_digits, gold_base = gold_based or (squeeze(gold).lstrip("0").upper(), None)
    if base is not None and not has_digits_of(digits, base):
        return False
    return digits == gold_digits and (base is None or gold_base is None or base == gold_base)


def _match_named(answer: str, gold: str, timeout_s: float) -> Comparison | None:
    """Compare named values by name; with bare ones in the order of the names, with a list also as written."""
    groups, gold_groups = named_values(answer), named_values(gold)
    one = any(len(side[0]) == 1 for side in (groups, gold_groups) if side)
    if (not groups and not gold_groups) or (one and not (groups and gold_groups) and "=" in answer and "=" in gold):
        return None
    if groups and gold_groups and groups[0].keys() != gold_groups[0].keys():
        return None if len(groups[0]) == len(gold_groups[0]) == 1 else (False, "ok")
    both, some, bare = bool(groups and gold_groups), groups or gold_groups, gold if groups else answer
    verdict: Comparison = False, "ok"
    for names in (sorted(some[0], key=order_of_name), list(some[0])):
        named = ",".join(in_order(group, names, both) for group in some)
        other = ",".join(in_order(group, names, both) for group in gold_groups) if both else bare
        if not both and len(some) == 1 and named.startswith("(") and (found := collection(bare)):
            other = f"({','.join(found[1])})"
        verdict = _match(*((named, other) if groups else (other, named)), timeout_s)
        if verdict[0] or both or BRACKETED.fullmatch(bare):
            break
    return verdict


def _match_collection(answer: str, gold: str, timeout_s: float, most: int = 60) -> Comparison | None:
    """Compare two collections value by value: in order if the gold is a tuple, else each with one of the others."""
    theirs = None if r"\pm" in answer + gold else collection(gold)
    if not theirs:
        return None
    ours = collection(answer)
    if not ours:
        is_other = _number(answer) or (not theirs[0] and not _OPENED.match(answer))
        return (False, "ok") if is_other else None
    if len(ours[1]) != len(theirs[1]) or len(ours[1]) > most:
        return False, "ok"
    left, status = list(theirs[1]), "ok"
    for value in ours[1]:
        candidates = left[:1] if theirs[0] == "(" else left
        for candidate in candidates:
            plain = _match_plain(value, candidate)
            same, how = _match(value, candidate, timeout_s) if plain is None else (plain, "ok")
            status = status if how == "ok" else how
            if same:
                left.remove(candidate)
                break
        else:
            return False, status
    return True, "ok"


def _match_equation(answer: str, gold: str, timeout_s: float) -> Comparison:
    """Every purely numeric side must equal the gold: `37=38` is not 38."""
    sides = [strip_units(side.strip())[0] for side in _SIDES.split(_INDEX.sub("", answer))]
    numeric = [side for side in sides if _NUMERIC.fullmatch(side) and _VALUE.search(side)]
    for side in numeric:
        verdict = _match(side, gold, timeout_s)
        if not verdict[0]:
            return verdict
    if numeric and not _COMPOUND.search(answer):
        return True, "ok"
    return symbolic.equal(gold, answer, timeout_s)


def _match_value(answer: str, gold: str, timeout_s: float) -> Comparison:
    """Decide multiples of a root or of pi exactly; leave the rest to Math-Verify."""
    if plain_number(gold) and (values := collection(answer)) and len(set(values[1])) > 1:
        return False, "ok"
    multiple, gold_multiple = exact_multiple(answer), exact_multiple(gold)
    if multiple and gold_multiple:
        return multiple == gold_multiple, "ok"
    return symbolic.equal(gold, answer, timeout_s)


def _match_plain(answer: str, gold: str) -> bool | None:
    """Compare two plain numbers; where one alone is a percentage it may be meant as a share of 1 or of 100."""
    number, gold_number = _number(answer), _number(gold)
    if not number or not gold_number:
        return None
    percent, gold_percent = (text.rstrip().endswith("%") for text in (answer, gold))
    if percent == gold_percent:
        return _same_number(number, gold_number)
    (value, exact), other = (number, gold_number) if percent else (gold_number, number)
    return any(_same_number((meant, exact), other) for meant in (value, value / 100))


def _number(text: str) -> Number | None:
    return plain_number(_IN_BRACKETS.sub(r"\1", text))


def _same_number(number: Number, gold_number: Number) -> bool:
    """Compare exactly, or to six decimal places where one is a decimal; a tiny number must also be close."""
    (value, exact), (gold_value, gold_exact) = number, gold_number
    if exact and gold_exact:
        return value == gold_value
    close = round(value * _ROUNDING) == round(gold_value * _ROUNDING)
    return close and abs(value - gold_value) * _RELATIVE <= abs(gold_value)
