"""What a rewrite removed, put in and replaced, and what these spans hold: numbers, signs, negations, units, choices."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from textwrap import shorten
from typing import Literal

from curiosft_cli.stages.rephrase.judge.function_words import KINDS_OF_WORDS
from curiosft_cli.stages.rephrase.judge.normalise import kind, tokens

LONGEST_SHOWN = 160
CHOICE = re.compile(r"(?<![A-Za-z0-9])\(?[A-H]\s?[.):、）．]")
NAMES = {"number": "number", "sign": "sign", "letter": "symbol", "command": "symbol"}


@dataclass(frozen=True)
class Edit:
    """One span that differs.

    Attributes:
        before: what the post has there, "" if the rewrite put something in.
        after: what the rewrite has there, "" if something was removed.
        old, new: their tokens.
        beside: the tokens before and behind it, two if it stands in the middle.
        place: where it stands in the post.
    """

    before: str
    after: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    beside: tuple[str, ...]
    place: Literal["start", "middle", "end"]

    @property
    def kind(self) -> str:
        """removed, inserted or replaced."""
        return "replaced" if self.old and self.new else "removed" if self.old else "inserted"

    @cached_property
    def holds(self) -> list[str]:
        """What only one of the two sides has, by name: `number 7`, `negation non`."""
        gone, new = (Counter(map(_named, side)) for side in (self.old, self.new))
        gone.update(f"choice {' '.join(found.split())}" for found in CHOICE.findall(self.before))
        new.update(f"choice {' '.join(found.split())}" for found in CHOICE.findall(self.after))
        return sorted(set((gone - new) | (new - gone)) - {""})

    def __str__(self) -> str:
        where = "in the middle" if self.place == "middle" else f"at the {self.place}"
        texts = " by ".join(f'"{shorten(text, LONGEST_SHOWN)}"' for text in (self.before, self.after) if text)
        return f"{self.kind} {where}: {texts}" + (f" ({', '.join(self.holds[:6])})" if self.holds else "")


def edits(post: str, rewrite: str, quick: int = 4_000_000) -> list[Edit]:
    """The spans in which the tokens of two texts differ, in order.

    Every token counts in the alignment up to `quick`, the product of the two lengths in tokens (our choice).
    """
    old, new = tokens(post), tokens(rewrite)
    a, b = (tuple(token.text for token in side) for side in (old, new))
    first = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    # Long equal starts would take quadratic time.
    matcher = SequenceMatcher(None, a[first:], b[first:], autojunk=len(a) * len(b) > quick)
    found = []
    for opcode, *places in matcher.get_opcodes():
        i, i_end, j, j_end = (place + first for place in places)
        if opcode == "delete" and i == first and a[:first] == a[i_end - first : i_end]:
            i, i_end, j, j_end = 0, i_end - first, 0, 0  # the rewrite starts with the later of two equal starts
        if opcode != "equal":
            place = "start" if i == 0 else "end" if i_end == len(a) else "middle"
            parts = (post, old[i:i_end]), (rewrite, new[j:j_end])
            spans = (text[part[0].start : part[-1].end] if part else "" for text, part in parts)
            beside = b[max(j - 1, 0) : j] + b[j_end : j_end + 1]
            found.append(Edit(*spans, a[i:i_end], b[j:j_end], beside, place))
    return found


def hints(found: list[Edit], most: int = 12) -> list[str]:
    """The edits that a reader should look at first: inside the text, or with mathematics in them."""
    return [str(edit) for edit in found if edit.holds or edit.place == "middle" or edit.after][:most]


def _named(token: str) -> str:
    """A token behind what it is, "" if a change of it is no hint."""
    name = "question" if token == "?" else KINDS_OF_WORDS.get(token.casefold(), NAMES.get(kind(token)))
    return f"{name} {token}" if name else ""
