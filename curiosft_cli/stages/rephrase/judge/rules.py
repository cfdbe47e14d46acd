"""What can be decided about a rewrite without understanding it; everything else is undecided.

A rule refuses what no cleaning does, or accepts what takes away nothing but a label. It knows no language: it compares
tokens, and where a text differs it looks at numbers, signs, letters and brackets only.
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

from curiosft_cli.data.prompts import REPHRASE_PROMPT
from curiosft_cli.stages.rephrase.judge.diff import Edit, edits, hints
from curiosft_cli.stages.rephrase.judge.function_words import SIGNS
from curiosft_cli.stages.rephrase.judge.labels import is_label
from curiosft_cli.stages.rephrase.judge.normalise import (
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
PROMPT_WORDS = ("Example 1:", "Example 2:", "Input:", "Output:", "math-related forum", "Here are a few examples")
EXAMPLES = tuple(
    part.partition("Output:")[2].strip().partition("\n")[0]
    for part in REPHRASE_PROMPT.partition("Now, here is")[0].split("Example ")[1:]
)
WRAPPING = re.compile(r"^\s*(?:```\w*\n|\*{0,2}output\*{0,2}\s*:\s*\*{0,2}\s*)|\s*```\s*$", re.IGNORECASE)
SURE_SIGNS = SIGNS - {"-", "/", "|", "*"}
"""Signs that are no punctuation in any text."""
MONEY = re.compile(r"(?:\$|\\\()\s?\d")
BRACKETS = (("\\(", "\\)"), ("\\[", "\\]"), ("\\begin", "\\end"), ("{", "}"))
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
        no_problem = rule == "other words" and not holds_mathematics(old)
        return Judgement("refused", f"{rule}: {found}", f"rule {rule}", no_problem=no_problem)
    if same_dollars(pair) and without_ends(old) == without_ends(new):
        return Judgement("accepted", "ok", "rule same text")
    if same_dollars(pair) and only_label_removed(pair):
        return Judgement("accepted", "ok", "rule only label removed")
    return Judgement("undecided", "no rule decides", differences=tuple(hints(pair.edits)))


def holds_mathematics(old: list[Token]) -> bool:
    """Whether a text has a number, a sign of mathematics, or a question mark."""
    return any(is_number(t) or t in SURE_SIGNS or t[0] == "\\" or t == "?" for t in (token.text for token in old))


def doubts_about_text(pair: Pair, same_script: float = 0.2, same_words: float = 0.5) -> Iterator[tuple[str, str]]:
    """Yield each rule that the rewrite as a whole breaks, and what was found.

    Args:
        pair: post and rewrite.
        same_script: least share of the post's letters that are of the rewrite's script.
        same_words: least share of the rewrite's tokens that are the post's: a refusal or a translation has fewer.
    """
    if not pair.new:
        yield "empty", "no words"
    copied = [
        one
        for one in EXAMPLES
        if (example := joined(tokens(one))) in joined(pair.new) and example[:40] not in pair.whole
    ]
    for word in (*copied, *PROMPT_WORDS):
        if word in copied or (word in pair.rewrite and word not in pair.post):
            yield "echo", word
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


def doubts_about_edits(pair: Pair, longest_gap: int = 4, most_words: float = 4.0) -> Iterator[tuple[str, str]]:
    """Yield each rule that one of the edits breaks, and the edit.

    Args:
        pair: post and rewrite.
        longest_gap: tokens inside a sentence whose loss is no cleaning: cleaning takes away what stands apart.
        most_words: new words in a row; two signs of Chinese are a word.
    """
    known = {token.text for token in pair.old}
    for edit in pair.edits:
        behind = edit.at + len(edit.new)
        around = joined(pair.new[max(edit.at - 2, 0) : behind + 2])
        is_exchange = len(edit.old) == len(edit.new) > 0 and all(map(is_symbol, edit.old + edit.new))
        is_new = any((token in SURE_SIGNS or token == "\\boxed") and token not in known for token in edit.new)
        if is_new or (is_exchange and around not in pair.whole):
            yield "new formula", str(edit)
        beside = [token.text for token in pair.new[max(edit.at - 1, 0) : edit.at + 1]]
        is_inside = edit.kind == "removed" and edit.place == "middle" and len(beside) == 2
        is_small = is_inside and len(edit.old) <= longest_gap and not any(map(is_stop, (*beside, *edit.old)))
        if is_small and edit.old[0] != beside[1] and edit.old[-1] != beside[0]:  # a word that stood there twice may go
            yield "gap", str(edit)
        size = sum(0.5 if len(token) == 1 else 1.0 for token in edit.new if is_word(token))
        if size > most_words and joined(pair.new[edit.at : behind]) not in pair.whole:
            yield "new words", str(edit)


def only_label_removed(pair: Pair) -> bool:
    """The post without a label in front of it or a source behind it."""
    kept = without_ends(pair.new)
    before, found, behind = pair.whole.partition(" ".join(["", *kept, ""]))
    start, end = len(before.split()), len(pair.old) - len(behind.split())
    while end < len(pair.old) and pair.old[end].text in ENDS:
        end += 1
    is_clear = bool(kept and found) and found not in f" {behind}"
    return is_clear and is_label(pair.post, pair.old, 0, start) and is_label(pair.post, pair.old, end, len(pair.old))


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
