"""Whether a piece at the start or end of a post is only a label: a number, a source, points. No language is known."""

from __future__ import annotations

import re

from curiosft_cli.stages.rephrase.judge.function_words import SIGNS
from curiosft_cli.stages.rephrase.judge.normalise import CJK, Token, is_letter, is_number, is_word

YEAR = re.compile(r"1[5-9]\d\d|20\d\d")
CLOSING = {"(": ")", "[": "]"}
LONGEST = 16
STOPS = frozenset(".:)],-#—|")


def is_label(post: str, old: list[Token], start: int, end: int) -> bool:
    """Whether the post's tokens from `start` to `end`, which are its first or its last, say nothing of the problem.

    A label has a number, no sign of a formula, and no letter that the problem uses.
    """
    piece, rest = old[start:end], old[end:] if start == 0 and end < len(old) else old[:start]
    if not piece:
        return True
    words, others = [token.text for token in piece], {token.text for token in rest}
    if len(words) > LONGEST or any(word in SIGNS - {"-", "/"} or word[0] == "\\" for word in words):
        return False
    if any(is_letter(word) and word in others for word in words):
        return False
    if rest[0] is old[0]:
        return is_source(post, piece, rest)
    own_line = "\n" in post[piece[-1].end : rest[0].start]
    apart = own_line or post[rest[0].start - 1].isspace()
    return is_numbering(words, others, [token.text for token in rest], apart=apart) or (
        apart and is_headline(words, post[rest[0].start], own_line=own_line)
    )


def is_source(post: str, piece: list[Token], rest: list[Token]) -> bool:
    """Whether the end of a post is a bracket or a line of its own with a year in it, behind the end of a sentence."""
    words = [token.text for token in piece]
    if not any(YEAR.fullmatch(word) for word in words) or any(is_letter(word) for word in words):
        return False
    if rest[-1].text not in {".", "?", "!", ")", "]", ";", ":"}:
        return False
    is_bracket = words[0] in CLOSING and words[-1] == CLOSING[words[0]] and len(words) > 3
    own_line = "\n" in post[rest[-1].end : piece[0].start]
    return is_bracket or (own_line and any(is_word(word) for word in words) and words[-1] not in {"?", "."})


def is_numbering(words: list[str], others: set[str], rest: list[str], *, apart: bool) -> bool:
    """Whether a piece is made of `Word 3.`, `3)`, `(10 words)`, `[Word 2011, #4]`, one after another."""
    at, is_open = 0, False
    while at < len(words):
        length, is_open = _bracket(words[at:]) or _number(words[at:])
        if not length:
            return False
        at += length
    if is_open and any(is_word(word) for word in words):
        # `Radius 5. Find the area.` looks like a label: what is left must have a number of its own.
        following, _ = _number(rest)
        if (following and is_word(rest[0])) or not any(is_number(word) or is_letter(word) for word in others):
            return False
    return apart or words[-1] in STOPS


def is_headline(words: list[str], next_sign: str, *, own_line: bool) -> bool:
    """Whether a piece names a contest: a year and another number, no sentence, and a new sentence behind it."""
    years = sum(bool(YEAR.fullmatch(word)) for word in words)
    numbers = sum(is_number(word) for word in words)
    if not years or any(word in {".", "?", "!", ";"} for word in words[:-1]):
        return False
    return own_line or (numbers > 1 and is_number(words[-1]) and not next_sign.islower())


def _bracket(words: list[str]) -> tuple[int, bool] | None:
    """Length of a bracket with a number in it."""
    if words[0] not in CLOSING or CLOSING[words[0]] not in words:
        return None
    end = words.index(CLOSING[words[0]])
    return (end + 1, False) if any(is_number(word) for word in words[1:end]) else None


def _number(words: list[str]) -> tuple[int, bool]:
    """Length of at most one word, a number such as 3 or 4.17, and a stop; 0 if it is none."""
    text = " ".join(words[:12])
    asian = rf"(?:[{CJK}] ){{0,3}}"
    found = re.match(
        rf"(?:[(\[] )?(?:{asian}|[^\W\d_]+ )(?:\. )?(?:# )?\d+(?: [a-z](?= ))?(?: [.\-] \d+)*(?: [{CJK}]){{0,2}}"
        r"(?: [)\]])?(?: [.:),、—\]-])*(?= |$)",
        text,
    )
    return (len(found[0].split()), True) if found else (0, False)
