"""Multiple choice: which letter an answer names. Never a guess: what is not plainly one letter is None."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from curiosft_cli.data.response_format import answer_region
from curiosft_cli.grading.extract import extract_answer

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_FONTS = (
    r"\\(?:text(?:bf|it|rm|sf|tt|sc|sl|normal)?|math(?:bf|it|rm|sf|tt|bb|cal|normal)|boldsymbol|bm|pmb|mbox|fbox|emph"
    r"|underline|operatorname|displaystyle|bf|rm|it|sf|left|right|large|Large)(?![A-Za-z])"
)
_FONT = re.compile(_FONTS)
_SPACES = re.compile(r"\\(?:quad|qquad)(?![A-Za-z])|\\[,;:! ]|\\\\|~|\s+")
_LEAD = re.compile(
    r"^(?:the\s+)?(?:(?:final|correct|best|right|only)\s+)*(?:option|choice|answer)\b"
    r"(?:\s+(?:option|choice|letter))?(?:\s*(?:is\s*:?|:)\s*|\s+|(?=\())(?:(?:option|choice)\s+)?",
    re.IGNORECASE,
)
_BARE = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.:]?")
_LABELLED = re.compile(r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[).:])\s*[.:]?\s*(.+)", re.DOTALL)
_LOOSE = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\]]?[\s,.:;-]+(.+)", re.DOTALL)
_SECOND = re.compile(
    r"(?:and\b|or\b|[&,/;+=|])|[(\[]?[A-Za-z][)\]]?[.:]?$|.*(?:^|[\s,;])(?:\([A-Z]\)|[A-Z]\))(?:\s|$)", re.DOTALL
)
_STATED = re.compile(
    r"answer[\s*_]*(?:is\b|[:：])(?:\s|[*_:：$(\[{]|\\[(\[]|option\b|choice\b|" + _FONTS + r")*"
    r"(?-i:([A-Z]))(?![A-Za-z0-9'’])(?=(?P<rest>[^\n]{0,24}))",
    re.IGNORECASE,
)
_NOT_ENGLISH = re.compile(r"\s*(?:$|[)\]}*_$.,:;\\—–-]|(?:because|since|as|due|for|with)\b)")
_ANOTHER = re.compile(r"[\s)\]}*_$]*(?:,|/|&|and\b|or\b)[\s(\[{*_$]*[A-Z](?![A-Za-z0-9'])")


def extract_letter(completion: str, n_choices: int, choices: Sequence[str] | None = None) -> str | None:
    """Return the letter that a completion chooses, or None.

    The last box of the region decides when there is one; else the last upper-case letter after "answer is" or
    "answer:". Several letters, an equation, a digit, or a letter past `n_choices` are None.
    """
    region = answer_region(completion)
    extraction = extract_answer(region)
    if extraction.has_box:
        return None if extraction.content is None else letter_in_box(extraction.content, n_choices, choices)
    return stated_letter(region, n_choices)


def letter_in_box(content: str, n_choices: int, choices: Sequence[str] | None = None) -> str | None:
    """Return the letter that the content of a box names: alone, before its text, or as the text of one choice."""
    plain = _plain(content)
    text = _LEAD.sub("", plain, count=1).strip()
    if bare := _BARE.fullmatch(text):
        return _within(bare[1], n_choices) or _label_of(plain, choices)
    by_text = _label_of(plain, choices) or _label_of(text, choices)
    if loose := _LOOSE.fullmatch(text):
        letter = _within(loose[1], n_choices)
        if letter and choices and _same_text(loose[2], choices[LETTERS.index(letter)]):
            return letter
    if by_text is None and (labelled := _LABELLED.fullmatch(text)):
        return None if _SECOND.match(labelled[3]) else _within(labelled[1] or labelled[2], n_choices)
    return by_text


def stated_letter(text: str, n_choices: int) -> str | None:
    """Return the last upper-case letter stated as the answer; the article A and the pronoun I are no choices."""
    stated = [m for m in _STATED.finditer(text) if m[1] not in "AI" or _NOT_ENGLISH.match(m["rest"])]
    if not stated or _ANOTHER.match(stated[-1]["rest"]):
        return None
    return _within(stated[-1][1], n_choices)


def _plain(content: str) -> str:
    text = unicodedata.normalize("NFKC", content)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = _FONT.sub("", text).replace("\\(", "").replace("\\)", "")
    text = re.sub(r"(?<!\\)[{}$]|\*\*|\\\$", "", text)
    return _SPACES.sub(" ", text).strip(" \\")


def _within(letter: str, n_choices: int) -> str | None:
    return letter.upper() if letter.upper() in LETTERS[:n_choices] else None


def _same_text(a: str, b: str) -> bool:
    return _squeezed(a) == _squeezed(b) != ""


def _label_of(text: str, choices: Sequence[str] | None) -> str | None:
    for spelling in (_squeezed, lambda t: _squeezed(t).casefold()):
        wanted = spelling(text)
        same = [
            letter for letter, choice in zip(LETTERS, choices or (), strict=False) if wanted == spelling(choice) != ""
        ]
        if same:
            return same[0] if len(same) == 1 else None
    return None


def _squeezed(text: str) -> str:
    return re.sub(r"[\s{},]", "", _plain(text)).rstrip(".")
