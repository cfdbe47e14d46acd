"""What can be decided about a rewrite without understanding it; everything else is undecided.

A rule refuses what no cleaning does, or accepts what takes away nothing but a label. It knows no language, only what
the tokens are that differ (number, sign, letter, word) and where they stand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from statistics import mode
from typing import Literal

from curiosft_cli.stages.rephrase.judge.diff import Edit, edits, hints
from curiosft_cli.stages.rephrase.judge.labels import TAIL, is_label, shape
from curiosft_cli.stages.rephrase.judge.normalise import BLANK, SIGNS, kind, script, spelled, tokens

WRAPPING = re.compile(r"^\s*(?:```\w*\n|\*{0,2}output\*{0,2}\s*:\s*\*{0,2}\s*)|\s*```\s*$", re.IGNORECASE)
SURE_SIGNS = SIGNS - {"-", "/", "|", "*", "°"} | {"\\boxed"}  # no punctuation in any text
MONEY = re.compile(r"(?:\$|\\\()\s?\d")
BRACKETS = (("\\(", "\\)"), ("\\[", "\\]"), ("\\begin", "\\end"), ("{", "}"))
APART = frozenset({*".?!:;()", "..."})  # stands before a piece that is no part of a sentence
STOPS_AT_END = re.compile(r'(?:(?:^| )[.,;:"])*$')


@dataclass(frozen=True)
class Judgement:
    """What is known about a rewrite.

    Attributes:
        reason: "ok", or what was found.
        decided_by: `rule NAME`, `verifier`, or `none` while it is undecided.
        differences: what a reader should look at.
        no_problem: the rewrite is not made of the post's words, and nothing in the post looks like mathematics.
    """

    outcome: Literal["accepted", "refused", "undecided"]
    reason: str
    decided_by: str = "none"
    differences: tuple[str, ...] = ()
    no_problem: bool = False


@cache
def judge_version() -> str:
    """Identity of everything in this folder, so that a saved verdict is made again after it changed."""
    parts = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def longest_rewrite(post: str, ratio: float = 1.2, slack: int = 10) -> int:
    """Characters beyond which an answer is no cleaning of this post (our choice)."""
    return int(ratio * len(post)) + slack


def is_too_long(text: str, most: int = 10_000) -> bool:
    """Whether a post or answer has more than `most` characters (our choice): it is not judged, so asking is in vain."""
    return len(text) > most


def tidy(rewrite: str) -> str:
    """The answer without code fences and without the prompt's own `Output:` in front."""
    return WRAPPING.sub("", rewrite.strip()).strip()


def judge_by_rules(post: str, rewrite: str) -> Judgement:
    """Accept or refuse a tidy rewrite where that is certain; else say where it differs."""
    if is_too_long(post) or is_too_long(rewrite):
        return Judgement("refused", f"too long to judge: {max(len(post), len(rewrite))} characters", "rule too long")
    found = edits(post, rewrite)
    for rule, what in doubts(post, rewrite, found):
        known = spelled(post)
        no_problem = rule == "other words" and not holds_mathematics(known) and "?" not in known
        return Judgement("refused", f"{rule}: {what}", f"rule {rule}", no_problem=no_problem)
    if rule := accepting_rule(post, rewrite):
        return Judgement("accepted", "ok", f"rule {rule}")
    return Judgement("undecided", "no rule decides", differences=tuple(hints(found)))


def accepting_rule(post: str, rewrite: str) -> str | None:
    """Whether the rewrite is the post, less a label in front of it and a source behind it."""
    kept, whole = (STOPS_AT_END.sub("", " ".join(spelled(text))).split() for text in (rewrite, post))
    start = next((at for at in range(len(whole) - len(kept) + 1) if whole[at : at + len(kept)] == kept), None)
    # Dollars around formulas are no tokens, so those that may be money are counted.
    if start is None or (whole and not kept) or len(MONEY.findall(rewrite)) != len(MONEY.findall(post)):
        return None
    old, pairs = tokens(post), zip(tokens(post)[start:], tokens(rewrite), strict=False)
    products = {(post[a.start : a.end], rewrite[b.start : b.end]) for a, b in pairs if a.text == "*"}
    # A cross is no dot, though both are one token.
    if len(products) > len(dict(products)) or not TAIL.fullmatch(shape(post, old[start:][max(len(kept) - 1, 0) :])):
        return None
    return "same text" if kept == whole else "only label removed" if not start or is_label(post, old, start) else None


def holds_mathematics(words: Iterable[str]) -> bool:
    """Whether there is a number or a sign of mathematics."""
    return any(word in SURE_SIGNS or kind(word) in ("number", "command") for word in words)


def doubts(
    post: str, rewrite: str, found: list[Edit], same: float = 0.5, longest: int = 4, most_words: float = 4.0
) -> Iterator[tuple[str, str]]:
    """Yield each rule that a tidy rewrite breaks, and what was found. Cleaning takes away what stands apart.

    Less than a share `same` of the post's tokens is a refusal. Up to `longest` tokens inside a sentence are a part of
    it, and no chat. A new piece of more than `most_words` is a solution; two signs of Chinese are a word.
    """
    if not tokens(rewrite):
        yield "empty", "no words"
    old, new = (re.sub(r"\\[${}]", "", text) for text in (post, rewrite))
    for opening, closing in BRACKETS:
        if new.count(opening) > new.count(closing) and old.count(opening) <= old.count(closing):
            yield "cut", f"{opening} has no {closing}"
    if new.count("$") % 2 and not old.count("$") % 2:
        yield "cut", "a $ is missing"
    if len(" ".join(spelled(rewrite))) > longest_rewrite(" ".join(spelled(post))):
        yield "too long", f"{len(rewrite)} characters for {len(post)}"
    before, after = (list(filter(None, map(script, spelled(text)))) for text in (post, rewrite))
    if before and after and (main := mode(after)) not in before:
        yield "other script", main
    if (others := sum(len(edit.new) for edit in found)) > (1 - same) * len(tokens(rewrite)):
        yield "other words", f"{others} of {len(tokens(rewrite))} are not the post's"
    known, digits = set(spelled(post)), set(re.findall(r"\d+", post))
    for edit in found:
        fresh, changed = set(edit.new) - known, edit.old + edit.new
        numbers = sorted(token for token in fresh if kind(token) == "number")
        if numbers and not digits.issuperset(re.findall(r"\d+", edit.after)):  # (3,100) may become (3, 100)
            yield "new number", numbers[0]
        is_exchange = len(edit.old) == len(edit.new) and all(map(is_symbol, changed))
        is_said = 0 < len(words(edit.old)) == len(edit.old)  # `3 plus 4` may become `3+4`
        if is_exchange or (fresh & SURE_SIGNS and not is_said):
            yield "new formula", str(edit)
        is_short = max(len(edit.old), len(edit.new)) <= longest
        is_part = edit.place == "middle" and is_short and "stop" not in map(kind, edit.beside + changed)
        if edit.kind == "removed" and edit.place == "middle" and is_gap(edit, is_part):
            yield "gap", str(edit)
        if is_part and is_other_word(edit):
            yield "other word", str(edit)
        if fresh and sum(0.5 if len(word) == 1 else 1.0 for word in words(edit.new)) > most_words:
            yield "new words", str(edit)


def is_other_word(edit: Edit, short: int = 4, inflected: float = 0.6, typo: float = 0.85) -> bool:
    """Whether a word stands for another one. Grammar may be mended: short words, and other ends of the same word."""
    old, new = words(edit.old), words(edit.new)
    if not old or not new or "".join(old) == "".join(new):  # non-negative may become nonnegative
        return False
    lengths = [len(word) for word in old + new]
    stem = int(inflected * max(lengths)) + 1
    is_mended = max(lengths) <= short and 1 not in lengths  # a sign of Chinese is a word
    is_typo = old[0][0] == new[0][0] and SequenceMatcher(None, "".join(old), "".join(new)).ratio() > typo
    return not is_mended and not is_typo and len({word[:stem] for word in old + new}) > 1


def is_gap(edit: Edit, is_part: bool) -> bool:
    """Whether the removed piece is a short part of a sentence, or holds mathematics and hangs on what stands before."""
    before, behind = edit.beside
    is_hyphen = edit.old == ("-",) and len(words(edit.beside)) == 2
    is_twice = edit.old[0] == behind or edit.old[-1] == before
    if is_part and not is_hyphen and not is_twice:
        return True
    is_blank = len(edit.old) == 1 or BLANK in (edit.old[-1], behind)  # an `=` before a blank may go
    return holds_mathematics(edit.old) and not is_blank and APART.isdisjoint((before, edit.old[0]))


def words(text: Iterable[str]) -> list[str]:
    """The words among these tokens; in some scripts signs are words."""
    return [token.casefold() for token in text if kind(token) in ("word", "character")]


def is_symbol(token: str) -> bool:
    """Whether a token is a sign, a number, a letter, or a name of points such as ABC."""
    return kind(token) in ("sign", "number", "letter") or (token.isupper() and token.isascii())
