"""What a rewrite removed, put in and replaced, and what these spans hold: numbers, signs, negations, units, choices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from textwrap import shorten
from typing import Literal

from curiosft_cli.stages.rephrase.judge.function_words import CONNECTIVES, NEGATIONS, QUANTIFIERS, SIGNS, UNITS
from curiosft_cli.stages.rephrase.judge.normalise import Token, is_letter, is_number, tokens

LONGEST_SHOWN = 160
QUICK = 4_000_000
"""Product of the two lengths in tokens up to which every token counts in the alignment (our choice)."""
CHOICE = re.compile(r"(?<![A-Za-z0-9])\(?[A-H]\s?[.):、）．]")


@dataclass(frozen=True)
class Edit:
    """One span that differs.

    Attributes:
        before: what the post has there, "" if the rewrite put something in.
        after: what the rewrite has there, "" if something was removed.
        old: the tokens of `before`.
        new: the tokens of `after`.
        place: where it stands in the post.
        at: number of its first token in the rewrite, or of the next one if something was removed.
    """

    before: str
    after: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    place: Literal["start", "middle", "end"]
    at: int

    @property
    def kind(self) -> str:
        """removed, inserted or replaced."""
        return "replaced" if self.before and self.after else "removed" if self.before else "inserted"

    @cached_property
    def holds(self) -> list[str]:
        """What only one of the two sides has, by name: `number 7`, `negation non`."""
        gone, new = (Counter(map(_named, side)) for side in (self.old, self.new))
        gone.update(f"choice {' '.join(found.split())}" for found in CHOICE.findall(self.before))
        new.update(f"choice {' '.join(found.split())}" for found in CHOICE.findall(self.after))
        return sorted(set((gone - new) | (new - gone)) - {""})

    def __str__(self) -> str:
        where = {"start": "at the start", "middle": "in the middle", "end": "at the end"}[self.place]
        texts = " by ".join(f'"{shorten(text, LONGEST_SHOWN)}"' for text in (self.before, self.after) if text)
        return f"{self.kind} {where}: {texts}" + (f" ({', '.join(self.holds[:6])})" if self.holds else "")


def edits(post: str, rewrite: str) -> list[Edit]:
    """The spans in which the tokens of two texts differ, in order."""
    old, new = tokens(post), tokens(rewrite)
    a, b = [token.text for token in old], [token.text for token in new]
    first = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    # Long equal starts would take quadratic time.
    matcher = SequenceMatcher(None, a[first:], b[first:], autojunk=len(a) * len(b) > QUICK)
    found = []
    for kind, *places in matcher.get_opcodes():
        i, i_end, j, j_end = (place + first for place in places)
        if kind != "equal":
            place = "start" if i == 0 else "end" if i_end == len(a) else "middle"
            spans = _span(post, old[i:i_end]), _span(rewrite, new[j:j_end])
            found.append(Edit(*spans, tuple(a[i:i_end]), tuple(b[j:j_end]), place, j))
    return found


def hints(found: list[Edit], most: int = 12) -> list[str]:
    """The edits that a reader should look at first: inside the text, or with mathematics in them."""
    return [str(edit) for edit in found if edit.holds or edit.place == "middle" or edit.after][:most]


def _span(text: str, part: list[Token]) -> str:
    return text[part[0].start : part[-1].end] if part else ""


CONTENTS: dict[str, Callable[[str], bool]] = {
    "number": is_number,
    "sign": SIGNS.__contains__,
    "negation": lambda token: token.casefold() in NEGATIONS,
    "quantifier": lambda token: token.casefold() in QUANTIFIERS | CONNECTIVES,
    "unit": lambda token: token.casefold() in UNITS,
    "symbol": lambda token: is_letter(token) or token[0] == "\\",
    "question": "?".__eq__,
}


def _named(token: str) -> str:
    """A token behind what it is, "" if a change of it is no hint."""
    return next((f"{name} {token}" for name, is_one in CONTENTS.items() if is_one(token)), "")
