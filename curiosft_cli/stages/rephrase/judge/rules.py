"""What can be decided about a rewrite without understanding it; everything else is undecided.

A rule refuses what no cleaning does, or accepts what takes away nothing but a label. It knows no language: it compares
tokens, and where a text differs it looks at what they are (number, sign, letter, word) and where they stand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from curiosft_cli.stages.rephrase.judge.diff import Edit, edits, hints
from curiosft_cli.stages.rephrase.judge.function_words import SIGNS
from curiosft_cli.stages.rephrase.judge.labels import is_label
from curiosft_cli.stages.rephrase.judge.normalise import (
    BLANK,
    Token,
    is_letter,
    is_number,
    is_word,
    script,
    scripts,
    tokens,
)

LONGEST = 10_000
"""Characters of the longest post or answer that is judged (our choice)."""
WRAPPING = re.compile(r"^\s*(?:```\w*\n|\*{0,2}output\*{0,2}\s*:\s*\*{0,2}\s*)|\s*```\s*$", re.IGNORECASE)
SURE_SIGNS = SIGNS - {"-", "/", "|", "*"}
"""Signs that are no punctuation in any text."""
MONEY = re.compile(r"(?:\$|\\\()\s?\d")
BRACKETS = (("\\(", "\\)"), ("\\[", "\\]"), ("\\begin", "\\end"), ("{", "}"))
APART = frozenset({*".?!:;()", "..."})
"""What may stand before a piece that is not part of a sentence."""
ENDS = frozenset('.,;:"')


@dataclass(frozen=True)
class Judgement:
    """What is known about a rewrite.

    Attributes:
        outcome: accepted, refused or undecided.
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


class Pair(NamedTuple):
    """A post and its rewrite, as texts, as tokens, the post's tokens with spaces around them, and what differs."""

    post: str
    rewrite: str
    old: list[Token]
    new: list[Token]
    whole: str
    edits: list[Edit]


@cache
def judge_version() -> str:
    """Identity of everything in this folder, so that a saved verdict is made again after it changed."""
    parts = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def longest_rewrite(post: str, ratio: float = 1.2, slack: int = 10) -> int:
    """Characters beyond which an answer is no cleaning of this post (our choice)."""
    return int(ratio * len(post)) + slack


def is_too_long(text: str, most: int = LONGEST) -> bool:
    """Whether this post or answer cannot be judged, so that asking about the post would be money for nothing."""
    return len(text) > most


def tidy(rewrite: str) -> str:
    """The answer without code fences and without the prompt's own `Output:` in front."""
    return WRAPPING.sub("", rewrite.strip()).strip()


def judge_by_rules(post: str, rewrite: str) -> Judgement:
    """Accept or refuse a tidy rewrite where that is certain; else say where it differs."""
    if is_too_long(post) or is_too_long(rewrite):
        return Judgement("refused", f"too long to judge: {max(len(post), len(rewrite))} characters", "rule too long")
    old, new = tokens(post), tokens(rewrite)
    pair = Pair(post, rewrite, old, new, joined(old), edits(post, rewrite))
    for rule, found in chain(doubts_about_text(pair), doubts_about_edits(pair)):
        known = {token.text for token in old}
        no_problem = rule == "other words" and not holds_mathematics(known) and "?" not in known
        return Judgement("refused", f"{rule}: {found}", f"rule {rule}", no_problem=no_problem)
    if same_dollars(pair) and without_ends(old) == without_ends(new):
        return Judgement("accepted", "ok", "rule same text")
    if same_dollars(pair) and only_label_removed(pair):
        return Judgement("accepted", "ok", "rule only label removed")
    return Judgement("undecided", "no rule decides", differences=tuple(hints(pair.edits)))


def holds_mathematics(words: Iterable[str]) -> bool:
    """Whether there is a number or a sign of mathematics."""
    return any(is_number(word) or word in SURE_SIGNS or word[0] == "\\" for word in words)


def doubts_about_text(pair: Pair, same_script: float = 0.2, same_words: float = 0.5) -> Iterator[tuple[str, str]]:
    """Yield each rule that the rewrite as a whole breaks, and what was found.

    Args:
        pair: post and rewrite.
        same_script: least share of the post's letters that are of the rewrite's script.
        same_words: least share of the rewrite's tokens that are the post's: a refusal or a translation has fewer.
    """
    if not pair.new:
        yield "empty", "no words"
    old, new = (re.sub(r"\\[${}]", "", text) for text in (pair.post, pair.rewrite))
    for opening, closing in BRACKETS:
        if new.count(opening) > new.count(closing) and old.count(opening) <= old.count(closing):
            yield "cut", f"{opening} has no {closing}"
    if new.count("$") % 2 and not old.count("$") % 2:
        yield "cut", "a $ is missing"
    if len(pair.rewrite) > longest_rewrite(pair.post):
        yield "too long", f"{len(pair.rewrite)} characters for {len(pair.post)}"
    main, letters = script(pair.rewrite), scripts(pair.post)
    if main != "none" and letters and letters[main] < same_script * letters.total():
        yield "other script", main
    if (share := 1 - sum(len(edit.new) for edit in pair.edits) / max(len(pair.new), 1)) < same_words:
        yield "other words", f"only {share:.0%} are the post's"
    known = {token.text for token in pair.old} | set(re.findall(r"\d+", pair.post))
    for token in pair.new:
        parts = re.findall(r"\d+", pair.rewrite[token.start : token.end])  # (3,100) may become (3, 100)
        if is_number(token.text) and token.text not in known and not (len(parts) > 1 and known.issuperset(parts)):
            yield "new number", token.text


def doubts_about_edits(pair: Pair, longest: int = 4, most_words: float = 4.0) -> Iterator[tuple[str, str]]:
    """Yield each rule that one of the edits breaks, and the edit. Cleaning takes away what stands apart.

    Args:
        pair: post and rewrite.
        longest: tokens inside a sentence that are a part of it, and no chat.
        most_words: new words in a row; two signs of Chinese are a word.
    """
    known = {token.text.casefold() for token in pair.old}
    for edit in pair.edits:
        behind = edit.at + len(edit.new)
        beside = [token.text for token in (*pair.new[max(edit.at - 1, 0) : edit.at], *pair.new[behind : behind + 1])]
        fresh = [token for token in edit.new if token.casefold() not in known]
        is_exchange = len(edit.old) == len(edit.new) > 0 and all(map(is_symbol, edit.old + edit.new))
        around = joined(pair.new[max(edit.at - 2, 0) : behind + 2])
        if not SURE_SIGNS.isdisjoint(fresh) or "\\boxed" in fresh or (is_exchange and around not in pair.whole):
            yield "new formula", str(edit)
        is_middle = edit.place == "middle" and len(beside) == 2
        is_part = is_middle and not any(map(is_stop, (*beside, *edit.old, *edit.new)))
        is_short = is_part and max(len(edit.old), len(edit.new)) <= longest
        if edit.kind == "removed" and is_middle and is_gap(edit, beside, is_short):
            yield "gap", str(edit)
        if is_short and fresh and is_other_word(edit):
            yield "other word", str(edit)
        size = sum(0.5 if len(token) == 1 else 1.0 for token in edit.new if is_word(token))
        if size > most_words and joined(pair.new[edit.at : behind]) not in pair.whole:
            yield "new words", str(edit)


def is_other_word(edit: Edit, short: int = 4, inflected: float = 0.6) -> bool:
    """Whether a word stands for another one. Grammar may be mended: short words, and other ends of the same word."""
    old, new = ([word.casefold() for word in side if is_word(word)] for side in (edit.old, edit.new))
    if not old or not new:
        return False
    lengths = [len(word) for word in old + new]
    stem = int(inflected * max(lengths)) + 1
    is_mended = max(lengths) <= short and 1 not in lengths  # a sign of Chinese is a word
    return not is_mended and len({word[:stem] for word in old + new}) > 1


def is_gap(edit: Edit, beside: list[str], is_short: bool) -> bool:
    """Whether the removed piece is a short part of a sentence, or holds mathematics and hangs on what stands before."""
    if is_short and edit.old[0] != beside[1] and edit.old[-1] != beside[0]:  # a word that stood there twice may go
        return True
    is_blank = len(edit.old) == 1 or BLANK in (edit.old[-1], beside[1])  # so may an `=` before a blank
    return holds_mathematics(edit.old) and not is_blank and APART.isdisjoint((beside[0], edit.old[0]))


def only_label_removed(pair: Pair) -> bool:
    """Whether the rewrite is the post without a label in front of it."""
    kept, old = without_ends(pair.new), without_ends(pair.old)
    start = len(old) - len(kept)
    return bool(kept) and old[start:] == kept and is_label(pair.post, pair.old, start)


def same_dollars(pair: Pair) -> bool:
    """Whether dollars that may be money are still there: dollars around formulas are no tokens."""
    return len(MONEY.findall(pair.rewrite)) == len(MONEY.findall(pair.post))


def without_ends(text: list[Token]) -> list[str]:
    """The tokens without stops at the end."""
    words = [token.text for token in text]
    while words and words[-1] in ENDS:
        words.pop()
    return words


def joined(text: Iterable[Token]) -> str:
    """Tokens with spaces around them."""
    return " ".join(["", *(token.text for token in text), ""])


def is_symbol(token: str) -> bool:
    """Whether a token is a sign, a number, a letter, or a name of points such as ABC."""
    return token in SIGNS or is_number(token) or is_letter(token) or (token.isupper() and token.isascii())


def is_stop(token: str) -> bool:
    """Whether a token is punctuation or a bracket."""
    return not token[0].isalnum() and token not in SIGNS and token[0] not in "\\{}"
