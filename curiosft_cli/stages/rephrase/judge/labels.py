"""Whether a piece at the start or end of a post is only a label: a number, a source, points. No language is known."""

from __future__ import annotations

import re

from curiosft_cli.stages.rephrase.judge.function_words import SIGNS
from curiosft_cli.stages.rephrase.judge.normalise import CJK, Token, is_letter, is_number, is_word

LONGEST = 16
"""Tokens of the longest label (our choice)."""
# Over tokens with a space behind each: `( 10 points ) `, `Problem 3 . `, `Q 4 . `, `4 . 17 : `.
BRACKET = r"[(\[] (?=[^()\[\]]*\d)[^()\[\]]*[)\]] "
WORD = rf"(?:(?:[{CJK}] ){{0,3}}|[^\W\d_]+ )"
NUMBERED = rf"{WORD}(?:\. )?(?:# )?\d+ (?:[a-z] )?(?:[.-] \d+ )*(?:[{CJK}] ){{0,2}}(?:[.:),、—-] )*"
LABELS = re.compile(rf"(?:{BRACKET}|{NUMBERED})+")
NAMED_NUMBER = re.compile(rf"(?=[^\W\d_]{{2}}|[{CJK}]){NUMBERED}")
SOURCE = re.compile(r"[(\[] (?=[^()\[\]]*\b(?:1[5-9]|20)\d\d )[^()\[\]]* [^()\[\]]*[)\]] ")
HEADLINE = re.compile(r"(?=.*\b(?:1[5-9]|20)\d\d )[^.?!;]*(?:[.?!;] )?")


def is_label(post: str, old: list[Token], start: int, end: int) -> bool:
    """Whether the post's tokens from `start` to `end`, which are its first or its last, say nothing of the problem.

    A label has a number, no sign of a formula, and no letter that the problem uses.
    """
    if start == end:
        return True
    piece, rest = [token.text for token in old[start:end]], [token.text for token in old[:start] + old[end:]]
    if len(piece) > LONGEST or any(word in SIGNS - {"-", "/"} or word[0] == "\\" for word in piece):
        return False
    if any(is_letter(word) and word in rest for word in piece):
        return False
    label = " ".join([*piece, ""])
    if start:
        return is_source(label, rest[-1], own_line="\n" in post[old[start - 1].end : old[start].start])
    gap = post[old[end - 1].end : old[end].start]
    return is_heading(label, " ".join([*rest, ""]), gap, post[old[end].start])


def is_source(label: str, before: str, *, own_line: bool) -> bool:
    """Whether the end of a post names a year, in a bracket or on a line of its own, behind the end of a sentence."""
    if before not in {".", "?", "!", ")", "]", ";", ":"} or any(map(is_letter, label.split())):
        return False
    named = own_line and any(map(is_word, label.split())) and label[-2] not in ".?"
    return bool(SOURCE.fullmatch(label) or (named and HEADLINE.fullmatch(label)))


def is_heading(label: str, rest: str, gap: str, first: str) -> bool:
    """Whether the start of a post is `Word 3.`, `(10 words)`, `[Word 2011, #4]`, or a line with a year in it."""
    is_apart = bool(gap) or label[-2] in ".:)],-#—|"
    if LABELS.fullmatch(label):
        # `Radius 5. Find the area.` looks like a label too: then what is left has a number or letter of its own.
        is_bare = is_word(label) and not any(is_number(word) or is_letter(word) for word in rest.split())
        return is_apart and not is_bare and not (is_word(label) and NAMED_NUMBER.match(rest))
    numbers = re.findall(r"\d+", label)
    ends_in_number = len(numbers) > 1 and label.endswith(f" {numbers[-1]} ") and not first.islower()
    return bool(HEADLINE.fullmatch(label)) and ("\n" in gap or (bool(gap) and ends_in_number))
