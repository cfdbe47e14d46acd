"""From a completion to the answer it states: its last box, else an explicit statement.

Every function here is total and linear in the text, because the text is whatever a model printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from curiosft_cli.data.response_format import BOXED, FBOX, is_blank, last_box, top_level_boxes

_STATEMENT = re.compile(r"\banswer\b[\s*_]*(?:is\b|[:：])[\s*_:：]*", re.IGNORECASE)
_DELIMITERS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))
_CONNECTED = re.compile(r"\s*(?:,|;|and\b|or\b|,\s*and\b)\s*[\d$\\(+-]")
_SENTENCE_END = re.compile(r"\.(?=\s)|\s(?:because|since|which|where|so|as|when)\s|[*_]{2}", re.IGNORECASE)
_MARKUP = re.compile(r"\$|\\[()\[\]]|`")


@dataclass(frozen=True)
class Extraction:
    """What a completion offers for comparison.

    Attributes:
        content: the inside of the last box, or of the explicit statement; None when there is no usable answer.
        boxes: the inside of every readable top-level box of the region, in order.
        has_box: a `\\boxed` occurs in the region, readable or not.
        fallback: `content` comes from an explicit statement (or an `\\fbox`), not from a `\\boxed`.
    """

    content: str | None
    boxes: tuple[str, ...]
    has_box: bool
    fallback: bool


def extract_answer(region: str, window: int = 2000) -> Extraction:
    """Find the answer of a region: its last `\\boxed`, else its last explicit statement.

    A `\\boxed` that is unbalanced or blank means that there is no answer. An `\\fbox` counts as a statement. A
    statement is looked for in the last `window` characters; a bare number is never an answer.
    """
    if BOXED.search(region):
        content = last_box(region)
        return Extraction(content, tuple(top_level_boxes(region)) if content is not None else (), True, False)
    content = last_box(region, FBOX) or stated_answer(region[-window:])
    return Extraction(content, (), False, content is not None)


def stated_answer(text: str) -> str | None:
    """Return X of the last "the (final) answer is X" or "Answer: X", or None."""
    values = (_statement_value(text[match.end() :]) for match in _STATEMENT.finditer(text))
    stated = [value for value in values if value is not None]
    return stated[-1] if stated else None


def _statement_value(tail: str) -> str | None:
    for opening, closing in _DELIMITERS:
        if tail.startswith(opening):
            content, found, rest = tail[len(opening) :].partition(closing)
            if found and not _CONNECTED.match(rest):
                return None if is_blank(content) else content.strip()
            break
    line = _MARKUP.sub("", tail.partition("\n")[0])
    value = _SENTENCE_END.split(line, maxsplit=1)[0].strip(" \t*_.,;:")
    return None if is_blank(value) else value
