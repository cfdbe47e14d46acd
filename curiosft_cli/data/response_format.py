"""The form of a response: end tokens, think tags, boxes.

Every function here is total and linear in the text, because the text is whatever a model printed.
"""

from __future__ import annotations

import re

END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>")
THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
BOXED = re.compile(r"\\boxed(?![A-Za-z])\s*")
FBOX = re.compile(r"\\fbox(?![A-Za-z])\s*")
_INVISIBLE = re.compile(r"\\(?:quad|qquad|text|mathrm|displaystyle)(?![A-Za-z])|\\[,;:! ]|[\s{}~$\u200b-\u200f\ufeff]")


def cut_at_end_token(completion: str, end_tokens: tuple[str, ...] = END_TOKENS) -> str:
    """Drop everything from the first end token on: what follows it is a made-up turn."""
    found = [completion.find(token) for token in end_tokens if token]
    return completion[: min((position for position in found if position >= 0), default=len(completion))]


def format_error(text: str) -> str | None:
    """Return the first broken rule of the required format, "F1".."F4", or None.

    F1 one `<think>`, at the start; F2 one `</think>`; F3 a thought that is not blank; F4 a solution whose last box is
    readable and not blank. `text` includes the opening tag.
    """
    if not text.lstrip().startswith(THINK_OPEN) or text.count(THINK_OPEN) != 1:
        return "F1"
    if text.count(THINK_CLOSE) != 1:
        return "F2"
    thought, solution = text.split(THINK_CLOSE)
    if not thought.replace(THINK_OPEN, "").strip():
        return "F3"
    return "F4" if last_box(solution) is None else None


def answer_region(completion: str) -> str:
    """Return what follows the last `</think>`, or the whole completion when the tag does not occur."""
    return completion.rpartition(THINK_CLOSE)[2]


def last_box(text: str, command: re.Pattern[str] = BOXED) -> str | None:
    """Return the content of the last box, or None when it is unbalanced or blank.

    A box inside another box is read with its surroundings: `\\boxed{5 \\text{ or } \\boxed{6}}` has two candidates.
    """
    spans = _box_spans(text, command)
    if not spans or spans[-1] is None:
        return None
    start, end = spans[-1]
    if is_blank(text[start:end]):
        return None
    outer = next(span for span in spans if span is not None and span[0] <= start and end <= span[1])
    return command.sub("", text[outer[0] : outer[1]]).strip()


def top_level_boxes(text: str) -> list[str]:
    """Return the content of every box that is balanced, not blank and not inside another box."""
    contents, reached = [], -1
    for span in _box_spans(text, BOXED):
        if span is not None and span[0] > reached:
            reached = span[1]
            if not is_blank(text[span[0] : span[1]]):
                contents.append(BOXED.sub("", text[span[0] : span[1]]).strip())
    return contents


def is_blank(content: str) -> bool:
    """Say whether nothing would be seen of a box with this content."""
    return not _INVISIBLE.sub("", content)


def _box_spans(text: str, command: re.Pattern[str]) -> list[tuple[int, int] | None]:
    """Return the [start, end) of each box's content in order of appearance, None for an unbalanced one."""
    openings = [match.end() for match in command.finditer(text)]
    if not openings:
        return []
    closing: dict[int, int] = {}
    stack: list[int] = []
    for token in _BRACE.finditer(text, openings[0]):
        if token[0] == "{":
            stack.append(token.start())
        elif token[0] == "}" and stack:
            closing[stack.pop()] = token.start()
    return [(start + 1, closing[start]) if start in closing else None for start in openings]
