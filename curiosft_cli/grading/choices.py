"""Multiple choice: which letter an answer names. Never a guess: what is not plainly one letter is None."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from curiosft_cli.grading.extract import stated_value, statement_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_STYLES = "(?:text|math|display)[a-z]*|boldsymbol|bm|pmb|[mf]box|emph|underline|operatorname|bf|rm|it|sf|[lL]arge"
_FONTS = rf"\\(?:{_STYLES}|left|right)(?![A-Za-z])"
_SPACES = re.compile(r"\\q?quad(?![A-Za-z])|\\[,;:! ]|\\\\|~|\s+")
_LEAD = re.compile(
    r"(?i)^(?:the\s+)?(?:(?:final|correct|best|right|only)\s+)*(?:option|choice|answer)\b"
    r"(?:\s+(?:option|choice|letter))?(?:\s*(?:is\s*:?|:)\s*|\s+|(?=\())(?:(?:option|choice)\s+)?"
)
_BARE = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.:]?")
_OPENING = re.compile(r"[(\[]?\s*([A-Za-z])\s*(?:([)\].:])[\s.:]*|[\s,;-][\s,.:;-]*)(.+)", re.DOTALL)
_SECOND = re.compile(
    r"(?:and\b|or\b|[&,/;+=|])|[(\[]?[A-Za-z][)\]]?[.:]?$|.*(?:^|[\s,;])(?:\([A-Z]\)|[A-Z]\))(?:\s|$)", re.DOTALL
)
_RIGHT = "(?:correct|right|best)"
_STATED = statement_of(rf"(?:answer|(?:{_RIGHT}|final)\s+(?:option|choice|letter|statement))")
_FIRST = re.compile(
    rf"(?:[\s*_:(\[{{$]|\\[(\[]|option\b|choice\b|{_FONTS})*(?-i:([A-Z]))(?![A-Za-z0-9'’])", re.IGNORECASE
)
_NOT_ENGLISH = re.compile(r"\s*(?:$|[)\]}*_$.,:;\\—–-]|(?:because|since|as|due|for|with)\b)", re.MULTILINE)
_OPEN = re.compile(
    r"[\s)\]}*_$]*(?:(?:,|/|&|(?:and|or)\b(?:\s+[a-z]+)?)[\s(\[{*_$]*[A-Z](?![A-Za-z0-9'])|(?:only\s+)?(?:if|unless)\b)"
)
_JUDGED = re.compile(
    r"(?im)(?:\b(?:option|choice|answer)[\s*_]{0,6}\(?([A-Z])"
    r"|(?:^|[.!?:]\s|\b(?:so|thus|hence|therefore|think|believe|conclude|that),?\s)[ *_]{0,4}\(?(?-i:([A-Z])))"
    r"(?![A-Za-z0-9'’])[\s)*_]{0,6}(?:,?\s?(?:therefore|thus|hence|clearly)\b,?\s)?is\s(?:the\s)?(?:only\s)?"
    rf"{_RIGHT}(?:\s(?:one|answer|option|choice))?\s?(?:[*_.,;:!)]|$|because\b|since\b|as\b)"
)
_DOUBTED = re.compile(
    r"(?i)(?:\b(?:incorrect|wrong|not|if|whether|suppose|assum\w+|nor|unless|doubt|why)(?:\s+\w+)?(?:\s+that)?"
    r"(?:\s+(?:option|choice))?|(?<![A-Za-z])(?-i:[A-Z])\W*(?:[,/&]|and|or))[\s(*_]*$"
)


def named_letter(content: str, n_choices: int, choices: Sequence[str] = (), *, any_text: bool = True) -> str | None:
    """Return the letter that a box or a value names: alone, before its text, or as the text of one choice.

    Without `any_text` only the text of the letter's own choice may follow it.
    """
    plain = _plain(content)
    text = _LEAD.sub("", plain, count=1).strip()
    if bare := _BARE.fullmatch(text):
        return _within(bare[1], n_choices) or _label_of(plain, choices)
    opening = _OPENING.fullmatch(text)
    letter = _within(opening[1], n_choices) if opening else None
    if opening and letter and choices and _squeezed(opening[3]) == _squeezed(choices[LETTERS.index(letter)]) != "":
        return letter
    is_labelled = any_text and opening and opening[2] and not _SECOND.match(opening[3])
    return _label_of(plain, choices) or _label_of(text, choices) or (letter if is_labelled else None)


def stated_letter(
    region: str, n_choices: int, choices: Sequence[str] = (), *, most: int = 50, window: int = 2000
) -> str | None:
    """Return the letter of a region without a box: the last statement's, or that of the region or its last line alone.

    A statement is "the answer is C", "option C is correct", or a heading "Answer" above the letter. The last `most` of
    them count, with `window` characters each.
    """
    statements = [match for pattern in (_STATED, _JUDGED) for match in pattern.finditer(region)]
    for match in sorted(statements, key=lambda match: match.end(), reverse=True)[:most]:
        start = match.start(match.lastindex or 0)
        if _DOUBTED.search(region[max(0, start - 40) : start]):
            continue
        if match.re is _JUDGED:
            return _within(match[1] or match[2], n_choices)
        tail = region[match.end() : match.end() + window]
        if letter := _letter_at_start(tail, n_choices, choices):
            return letter
        if _FIRST.match(tail):
            return None
    earlier, _, last = region.strip().rpartition("\n")
    if statements or "\\fbox" in last or (earlier and not _BARE.fullmatch(_plain(last))):
        return None
    return named_letter(last, n_choices, choices, any_text=False)


def _letter_at_start(tail: str, n_choices: int, choices: Sequence[str]) -> str | None:
    line, value = tail.partition("\n")[0].rstrip(" .*"), stated_value(tail)
    if value is None or value in ("a", "i"):
        return None
    if letter := named_letter(line, n_choices, choices, any_text=False):
        return letter
    first = _FIRST.match(tail)
    if first and (first[1] not in "AI" or _NOT_ENGLISH.match(tail, first.end())):
        return None if _OPEN.match(tail, first.end()) else _within(first[1], n_choices)
    return named_letter(value, n_choices, choices)


def _plain(content: str) -> str:
    text = "".join(c for c in unicodedata.normalize("NFKC", content) if unicodedata.category(c) != "Cf")
    text = re.sub(_FONTS, "", text).replace("\\(", "").replace("\\)", "")
    text = re.sub(r"(?<!\\)[{}$]|\*\*|\\\$", "", text)
    return _SPACES.sub(" ", text).strip(" \\\"'“”‘’")


def _within(letter: str, n_choices: int) -> str | None:
    return letter.upper() if letter.upper() in LETTERS[:n_choices] else None


def _label_of(text: str, choices: Sequence[str]) -> str | None:
    for spelling in (_squeezed, lambda t: _squeezed(t).casefold()):
        wanted = spelling(text)
        same = [letter for letter, choice in zip(LETTERS, choices, strict=False) if wanted == spelling(choice) != ""]
        if same:
            return same[0] if len(same) == 1 else None
    return None


def _squeezed(text: str) -> str:
    return re.sub(r"[\s{},]", "", _plain(text)).rstrip(".")
