"""Does a free-form answer say the same as the gold? Cheap exact tests first, Math-Verify last."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from curiosft_cli.grading import parse, symbolic
from curiosft_cli.grading.choices import LETTERS, named_letter
from curiosft_cli.grading.normalise import CHANGES, marks, normalise, squeeze
from curiosft_cli.grading.symbolic import Comparison
from curiosft_cli.grading.units import strip_units, variables, without_units

YES: Comparison = (True, "ok")
NO: Comparison = (False, "ok")

MAX_CHARACTERS = 4000
MAX_DIGITS = 1000
MAX_DEPTH = 50
MAX_EQUALS = 50

_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
# An answer with one of these says more, or less, than a gold without it; Math-Verify reads only the last part.
_NOT_ADDED = re.compile(
    r"\\(?:not|notin|nequiv|input|include|write|openin|openout|read|immediate|catcode|def|special|usepackage"
    r"|newcommand)(?![A-Za-z])|\\write18|--|\\[lcv]?dots(?![A-Za-z])|\.\.\.|\\ne(?![A-Za-z])"
    r"|^\s*(?:[<>]|\\[lg]e(?![A-Za-z]))|&|\\\\"
    r"|\\(?:to|(?:long)?(?:left)?(?:right)arrow|(?:Long)?(?:Left)?Rightarrow|implies|iff|mapsto|equiv|sim|cong|propto"
    r"|v?ee|wedge|lor|land|x?cancel|sout|phantom|stackrel|overset|underset)(?![A-Za-z])"
    rf"|\b(?:{CHANGES})\b"
)
_INDEX = re.compile(r"_\s*\{[^{}]*(?:=|\\to)[^{}]*\}")
_VALUE = re.compile(r"\d|\\pi")
_OPTION = re.compile(
    r"\\text(?:bf)?\s*\{\s*\(([A-Z])\)\s*\}|\(?([A-Z])[).:]\s+[A-Za-z][a-z]{2}[A-Za-z ]*"
    r"|(?:Option|Choice)\s+\(?([A-Z])\)?"
)
_POINT = re.compile(r"(?:[(\[]|\\\{)\s*\d{1,3}(?:,\d{3})+|,\d{3}\s*(?:[)\]]|\\\})")


def match_math(answer: str, gold: str, timeout_s: float = symbolic.LIBRARY_TIMEOUT_S) -> Comparison:
    """Return whether a free-form answer (the inside of a box) equals the gold, and how the comparison went.

    Never raises on any text; must run in the main thread.
    """
    if len(answer) > 2 * MAX_CHARACTERS:
        return NO
    has_points = _POINT.search(gold) is not None
    clean = normalise(gold, thousands=not has_points)
    verdict = _match(normalise(answer), clean, timeout_s)
    if verdict[0] or not (has_points or parse.collection(clean)):
        return verdict
    return _match(normalise(answer, thousands=False), clean, timeout_s)  # `100,200` may be two values


def same_spelling_key(answer: str) -> tuple[str, ...]:
    """Return a key that is equal for two answers which are the same number, or the same text when printed."""
    if not is_within_limits(answer):
        return ("text", answer)
    text = normalise(answer)
    number = parse.plain_number(text)
    return ("number", f"{number.kind} {number.value}") if number else ("text", squeeze(text))


def is_within_limits(text: str) -> bool:
    """Say whether a text is small enough to be handed to a parser: length, run of digits, equals signs, brackets."""
    if len(text) > MAX_CHARACTERS or text.count("=") > MAX_EQUALS or _LONG_NUMBER.search(text):
        return False
    return all(depth <= MAX_DEPTH for _, depth in marks(text))


@lru_cache(maxsize=8192)
def _match(answer: str, gold: str, timeout_s: float) -> Comparison:
    if not is_within_limits(answer):
        return NO
    if squeeze(answer) == squeeze(gold) != "":
        return YES
    if (verdict := _named(answer, gold, timeout_s)) is not None:
        return verdict
    core, gold_core, factor = without_units(answer, gold)
    if factor != 1:
        return (_plain(core, gold_core, timeout_s, factor) if factor else None) or NO
    if gold and not gold_core:
        return YES
    for compare in (_words, _option, symbolic.same_condition, _numeral):
        if (verdict := compare(answer, gold, timeout_s)) is not None:
            return verdict
    if not set(_NOT_ADDED.findall(_INDEX.sub("", answer))) <= set(_NOT_ADDED.findall(gold)):
        return NO
    for compare in (_plain, _collection, _chain):
        if (verdict := compare(core, gold_core, timeout_s)) is not None:
            return verdict
    return symbolic.equal(core, gold_core, timeout_s)


def _named(answer: str, gold: str, timeout_s: float) -> Comparison | None:
    """Compare named values by name; with bare ones in the order of the names, with a list also as written."""
    groups, gold_groups = parse.named_values(answer), parse.named_values(gold)
    both, some, bare = bool(groups and gold_groups), groups or gold_groups, gold if groups else answer
    if not some or (len(some[0]) == 1 and not both and "=" in answer and "=" in gold):
        return None
    if both and groups[0].keys() != gold_groups[0].keys():
        return None if len(groups[0]) == len(gold_groups[0]) == 1 else NO
    verdict = NO
    for names in (sorted(some[0], key=parse.order_of_name), list(some[0])):
        named = ",".join(parse.in_order(group, names, both) for group in some)
        other = ",".join(parse.in_order(group, names, both) for group in gold_groups) if both else bare
        if not both and len(some) == 1 and named.startswith("(") and (found := parse.collection(bare)):
            other = f"({','.join(found[1])})"
        verdict = _match(*((named, other) if groups else (other, named)), timeout_s)
        if verdict[0] or both or parse.BRACKETED.fullmatch(bare):
            break
    return verdict


def _words(answer: str, gold: str, timeout_s: float) -> Comparison | None:
    """Compare words with words; undecided when the gold is not in words, or may be a product of variables."""
    gold_words = parse.words(gold)
    same_text = squeeze(parse.plain_text(answer)) == squeeze(parse.plain_text(gold))
    if same_text or (gold_words and parse.words(answer) == gold_words):
        return YES
    return NO if gold_words and parse.TEXT.search(gold) else None


def _option(answer: str, gold: str, timeout_s: float) -> Comparison | None:
    """Compare letters where the gold is an option, `\\text{(C)}` or `(C) Alina`, or is `C` and the answer is one."""
    option = _OPTION.fullmatch(gold) or (_OPTION.fullmatch(answer) if len(gold) == 1 else None)
    other = gold if option and option.string == answer else answer
    return (named_letter(other, len(LETTERS)) == next(filter(None, option.groups())), "ok") if option else None


def _numeral(answer: str, gold: str, timeout_s: float) -> Comparison | None:
    """Compare numerals by digits and base, where one has a base; the other may leave it out."""
    (digits, base), (gold_digits, gold_base) = parse.numeral(answer), parse.numeral(gold)
    if base is gold_base is None:
        return None
    return digits == gold_digits and (base == gold_base or None in (base, gold_base)), "ok"


def _plain(answer: str, gold: str, timeout_s: float, factor: Fraction = Fraction(1)) -> Comparison | None:
    """Compare two numbers, the answer's times a factor; a percentage alone may be meant as a share of 1 or of 100."""
    number, gold_number = parse.plain_number(answer), parse.plain_number(gold)
    if not number or not gold_number:
        return None
    if number.kind != gold_number.kind:
        return NO if number.exact and gold_number.exact else None
    number = number._replace(value=number.value * (factor**2 if number.kind == "root" else factor))
    percent, gold_percent = (text.rstrip().endswith("%") for text in (answer, gold))
    if percent == gold_percent:
        return _same_number(number, gold_number), "ok"
    share, other = (number, gold_number) if percent else (gold_number, number)
    return any(_same_number(share._replace(value=share.value / part), other) for part in (1, 100)), "ok"


def _collection(answer: str, gold: str, timeout_s: float, most: int = 60) -> Comparison | None:
    """Compare two collections value by value: in order if the gold is a tuple, else each with one of the others."""
    ours, theirs = parse.collection(answer), parse.collection(gold)
    if not theirs:
        return NO if parse.plain_number(gold) and ours and len(set(ours[1])) > 1 else None
    if not ours and theirs[0] and not parse.plain_number(answer):
        return None  # a pair in brackets may be an interval, and the answer another spelling of it
    if not ours or len(ours[1]) != len(theirs[1]) or len(ours[1]) > most:
        return NO
    left, status = list(theirs[1]), "ok"
    for value in ours[1]:
        for candidate in left[:1] if theirs[0] == "(" else left:
            same, how = _plain(value, candidate, timeout_s) or _match(value, candidate, timeout_s)
            status = status if how == "ok" else how
            if same:
                left.remove(candidate)
                break
        else:
            return False, status
    return YES


def _chain(answer: str, gold: str, timeout_s: float) -> Comparison | None:
    """Every side that is a number, or has no other variables than the gold, must equal the gold: `37=38` is not 38.

    Other sides say what it is: `S_n`, or `m+n`.
    """
    parts = [] if "=" in gold else parse.split_outside_brackets(answer, "=")
    sides = [strip_units(side.strip())[0] for side in parts if len(parts) > 1]
    values = [side for side in sides if _VALUE.search(parse.TEXT.sub("", side)) and variables(side) <= variables(gold)]
    counted = [value for value in values if not parse.NAME.fullmatch(squeeze(value))]
    verdicts = (_match(side, gold, timeout_s) for side in counted)
    return next((verdict for verdict in verdicts if not verdict[0]), YES if counted else None)


def _same_number(number: parse.Number, gold_number: parse.Number, places: int = 6, digits: int = 3) -> bool:
    """Compare exactly, or to decimal places where one is a decimal; a tiny number also to so many digits."""
    value, gold_value = number.value, gold_number.value
    if number.exact and gold_number.exact:
        return value == gold_value
    is_close = abs(value - gold_value) * 10**digits <= abs(gold_value)
    return is_close and round(value, places) == round(gold_value, places)
