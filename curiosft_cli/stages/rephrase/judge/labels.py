"""Whether a piece at the start of a post is only a label: a number, a source, points. No language is known."""

from __future__ import annotations

import re

from curiosft_cli.stages.rephrase.judge.function_words import SIGNS
from curiosft_cli.stages.rephrase.judge.normalise import CJK, Token, is_letter, is_number, is_word

LONGEST = 16
"""Tokens of the longest label (our choice)."""
# Over tokens with a space behind each: `( 10 points ) `, `Problem 3 . `, `Q 4 . `, `4 . 17 : `.
BRACKET = rf"[(\[] (?:\d+ |(?=[^()\[\]]*\d)(?=[^()\[\]]*(?:[^\W\d_]{{2}}|[{CJK}]))[^()\[\]]*)[)\]] "
WORD = rf"(?:(?:[{CJK}] ){{0,3}}|[^\W\d_]+ )"
NUMBERED = rf"{WORD}(?:\. )?(?:# )?\d+ (?:[a-z] )?(?:[.-] \d+ )*(?:[{CJK}] ){{0,2}}(?:[.:)、—-] )*"
LABELS = re.compile(rf"(?:{BRACKET}|{NUMBERED})+")
NAMED_NUMBER = re.compile(rf"(?=[^\W\d_]{{2}}|[{CJK}]){NUMBERED}")
YEAR = r"\b(?:1[5-9]|20)\d\d "
HEADLINE = re.compile(rf"(?=.*{YEAR})[^.?!;:]*(?:[.?!;] )?")


def is_label(post: str, old: list[Token], end: int) -> bool:
    """Whether the post's first tokens, up to `end`, say nothing of the problem.

    A label has a number, no sign of a formula, and no letter that the problem uses. It is `Word 3.`, `(10 words)`,
    `[Word 2011, #4]`, or a line with a year in it.
    """
    piece, others = ([token.text for token in part] for part in (old[:end], old[end:]))
    if len(piece) > LONGEST or any(word in SIGNS - {"-", "/"} or word[0] == "\\" for word in piece):
        return False
    if not piece or any(is_letter(word) and word in others for word in piece):
        return False
    label, rest = " ".join([*piece, ""]), " ".join([*others, ""])
    if re.search(YEAR, label) and re.search(YEAR, rest) and not is_number(piece[-1]):
        return False  # years are what the problem is about
    gap, first = post[old[end - 1].end : old[end].start], post[old[end].start]
    new_line, stop = "\n" in gap, label[-2]
    if first.islower() and not new_line:
        return False
    if LABELS.fullmatch(label):
        has_word, begins = is_word(label), rest.split()[:2]
        is_text = any(map(is_word, begins)) and all(is_word(word) or is_letter(word) for word in begins)
        # `Radius 5. Find the area.` looks like a label too: then what is left has a number or letter of its own.
        is_bare = has_word and not any(is_number(word) or is_letter(word) for word in rest.split())
        if is_bare or (has_word and NAMED_NUMBER.match(rest)):
            return False
        # `0.5 kg`, `3 - X`, `(3)X` and `Given 3 points` begin like labels.
        if stop in ".:、" or (stop == ")" and "(" not in label):
            return new_line or not first.isdigit()
        is_asian = bool(gap and re.match(f"[{CJK}]", stop if is_word(stop) else label))
        names_something = stop in ")]" and bool(re.search(r"[^\W\d_][^()\[\]]*[)\]] $", label))
        return new_line or names_something or (is_text and (stop in ")]-—" or is_asian))
    numbers = re.findall(r"\d+", label)
    return bool(HEADLINE.fullmatch(label)) and (
        new_line or (bool(gap) and len(numbers) > 1 and label.endswith(f" {numbers[-1]} "))
    )
