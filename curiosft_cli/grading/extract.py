"""From a completion to the answer it states: its last box, else an explicit statement.

Every function here is total and linear in the text, because the text is whatever a model printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from curiosft_cli.data.response_format import BOXED, FBOX, is_blank, last_box, top_level_boxes

_ADVERB = r"(?:therefore|thus|hence|then|so|clearly|simply|for\s+sure|approximately|equal\s+to)\b"
_VERB = r"(?:is|equals|(?:must|should|would|turns\s+out\s+to)\s+be)"
_DELIMITERS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))
_CONNECTED = re.compile(r"\s*(?:,|;|and\b|or\b|,\s*and\b)\s*[\d$\\(+-]")
_SENTENCE_END = re.compile(
    r"(?i)\.(?=\s)|,?\s(?:because|since|which|where|so|as|when|but|therefore|(?:and\s)?not)\s|[*_]{2}|</"
)
_MARKUP = re.compile(r"\\?\$|\\[()\[\]]|`")


def statement_of(subject: str) -> re.Pattern[str]:
    """Return a pattern for "SUBJECT is", "SUBJECT:" and the heading "Final SUBJECT"; its end is where the value starts.

    `subject` is a regular expression.
    """
    return re.compile(
        rf"(?im)(?<!/)\b{subject}(?:\s+to\s+th\w+\s+\w+)?[\s*_]*(?:,\s*{_ADVERB},?\s*)?(?:{_VERB}\b|[:：=>])(?:[\s*_:：,]|{_ADVERB})*"
        rf"|^[ \t#*_]*(?:the\s+)?(?:(?:final|correct)\s+)?{subject}[ \t*_]*(?:\n[\s*_]*|(?=\$|\\[(\[]))"
    )


_ANSWER = statement_of("answer")


@dataclass(frozen=True)
class Extraction:
    """What a completion offers for comparison.

    Attributes:
        content: the inside of the last box, or of the explicit statement; None when there is no usable answer.
        boxes: the inside of every readable top-level box of the region, in order.
        has_box: a `\\boxed` occurs in the region, readable or not.
    """

    content: str | None
    boxes: tuple[str, ...]
    has_box: bool


def extract_answer(region: str, window: int = 2000) -> Extraction:
    """Find the answer of a region: its last `\\boxed`, else its last explicit statement.

    A `\\boxed` that is unbalanced or blank means that there is no answer. An `\\fbox` counts as a statement. A
    statement is searched in the last `window` characters; a bare number is never an answer.
    """
    if BOXED.search(region):
        content = last_box(region)
        return Extraction(content, tuple(top_level_boxes(region)) if content is not None else (), True)
    content = last_box(region, FBOX) or stated_answer(region[-window:])
    return Extraction(content, (), False)


def stated_answer(text: str) -> str | None:
    """Return X of the last "the (final) answer is X" or "Answer: X", or None."""
    values = [stated_value(text[match.end() :]) for match in _ANSWER.finditer(text)]
    return next((value for value in reversed(values) if value is not None), None)


def stated_value(tail: str) -> str | None:
    """Return the value that a text starts with: up to its closing delimiter, or to the end of its sentence."""
    for opening, closing in _DELIMITERS:
        if tail.startswith(opening):
            content, found, rest = tail[len(opening) :].partition(closing)
            is_money = closing == "$" and rest[:1].isdigit()
            if found and not is_money and not _CONNECTED.match(rest):
                return None if is_blank(content) else content.strip()
            break
    line = _MARKUP.sub("", tail.partition("\n")[0])
    value = _SENTENCE_END.split(line, maxsplit=1)[0].lstrip(" \t*_,;:").rstrip(" \t*_.,;:")
    return None if is_blank(value) else value
