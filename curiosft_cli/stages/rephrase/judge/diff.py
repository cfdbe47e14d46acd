"""What a rewrite removed, put in and replaced, and what these spans hold: numbers, signs, negations, units, choices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import Literal

from curiosft_cli.stages.rephrase.judge.function_words import CONNECTIVES, NEGATIONS, QUANTIFIERS, SIGNS, UNITS
from curiosft_cli.stages.rephrase.judge.normalise import Token, is_letter, is_number, spelled, tokens

QUICK = 4_000_000
"""Product of the two lengths in tokens up to which every token counts in the alignment (our choice)."""
CHOICE = re.compile(r"(?<![A-Za-z0-9])\(?[A-H]\s?[.):、）．]")


@dataclass(frozen=True)
class Edit:
    """One span that differs.

    Attributes:
        before: what the post has there, "" if the rewrite put something in.
        after: what the rewrite has there, "" if something was removed.
        place: where it stands in the post.
        at: number of its first token in the rewrite, or of the next one if something was removed.
    """

    before: str
    after: str
    place: Literal["start", "middle", "end"]
    at: int

    @property
    def kind(self) -> str:
        """removed, inserted or replaced."""
        return "replaced" if self.before and self.after else "removed" if self.before else "inserted"

    @cached_property
    def holds(self) -> list[str]:
        """What only one of the two sides has, by name: `number 7`, `negation non`."""
        gone, new = Counter(_contents(self.before)), Counter(_contents(self.after))
        return sorted((gone - new) | (new - gone))

    def __str__(self) -> str:
        where = {"start": "at the start", "middle": "in the middle", "end": "at the end"}[self.place]
        texts = " by ".join(f'"{_short(text)}"' for text in (self.before, self.after) if text)
        return f"{self.kind} {where}: {texts}" + (f" ({', '.join(self.holds[:6])})" if self.holds else "")


def edits(post: str, rewrite: str) -> list[Edit]:
    """The spans in which the tokens of two texts differ, in order."""
    return aligned(post, tokens(post), rewrite, tokens(rewrite))


def aligned(post: str, old: list[Token], rewrite: str, new: list[Token]) -> list[Edit]:
    """The same for texts whose tokens are known."""
    a, b = [token.text for token in old], [token.text for token in new]
    first = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[first:], b[first:]  # long equal starts would be quadratic
    found = []
    for kind, i, i_end, j, j_end in SequenceMatcher(None, a, b, autojunk=len(a) * len(b) > QUICK).get_opcodes():
        if kind != "equal":
            i, i_end, j, j_end = i + first, i_end + first, j + first, j_end + first
            place = "start" if i == 0 else "end" if i_end == len(old) else "middle"
            found.append(Edit(_span(post, old[i:i_end]), _span(rewrite, new[j:j_end]), place, j))
    return found


def hints(found: list[Edit], most: int = 12) -> list[str]:
    """The changes a reader should look at first: those inside the text or with something of mathematics in them."""
    return [str(change) for change in found if change.holds or change.place == "middle" or change.after][:most]


def _span(text: str, part: list[Token]) -> str:
    return text[part[0].start : part[-1].end] if part else ""


def _short(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"


def _contents(text: str) -> list[str]:
    """What of a span may change a problem."""
    found = [f"choice {' '.join(choice.split())}" for choice in CHOICE.findall(text)]
    for token in spelled(text):
        kind = next((name for name, is_one in CONTENTS.items() if is_one(token)), None)
        if kind:
            found.append(f"{kind} {token}")
    return found


CONTENTS: dict[str, Callable[[str], bool]] = {
    "number": is_number,
    "sign": SIGNS.__contains__,
    "negation": lambda token: token.casefold() in NEGATIONS,
    "quantifier": lambda token: token.casefold() in QUANTIFIERS | CONNECTIVES,
    "unit": lambda token: token.casefold() in UNITS,
    "symbol": lambda token: is_letter(token) or token[0] == "\\",
    "question": "?".__eq__,
}
