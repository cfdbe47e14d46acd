"""What can be decided about a rewrite without understanding it; everything else is undecided.

A rule refuses what no cleaning does, or accepts what takes away nothing but a label. It knows no language: it compares
tokens, and where a text differs it looks at numbers, signs, letters and brackets only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

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
    spelled,
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


@dataclass(frozen=True)
class Pair:
    """A post and its rewrite; their tokens, also as one text each, are made when needed."""

    post: str
    rewrite: str

    @cached_property
    def old(self) -> list[Token]:
        """The post's tokens."""
        return tokens(self.post)

    @cached_property
    def new(self) -> list[Token]:
        """The rewrite's tokens."""
        return tokens(self.rewrite)

    @cached_property
    def whole(self) -> str:
        """The post's tokens with spaces around them."""
        return joined(token.text for token in self.old)

    @cached_property
    def edits(self) -> list[Edit]:
        """The spans that differ."""
        return edits(self.post, self.rewrite)


@cache
def judge_version() -> str:
    """Identity of everything in this folder, so that a saved verdict is made again after it changed."""
    parts = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def longest_rewrite(post: str, ratio: float = 1.2, slack: int = 10) -> int:
    """Characters beyond which an answer is no cleaning of this post (our choice)."""
    return int(ratio * len(post)) + slack


def is_too_long(post: str, most: int = LONGEST) -> bool:
    """Whether no answer to this post could be judged, so that asking would be money for nothing."""
    return len(post) > most


def tidy(rewrite: str) -> str:
    """The answer without code fences and without the prompt's own `Output:` in front."""
    return WRAPPING.sub("", rewrite.strip()).strip()


def judge_by_rules(post: str, rewrite: str) -> Judgement:
    """Accept or refuse a tidy rewrite where that is certain; else say where it differs."""
    if len(post) > LONGEST or len(rewrite) > LONGEST:
        return Judgement("refused", f"too long to judge: {max(len(post), len(rewrite))} characters", "rule too long")
    pair = Pair(post, rewrite)
    for rule in (empty, echo, cut, too_long, other_script, other_words, new_number, new_formula, gap, new_words):
        if found := rule(pair):
            name = rule.__name__.replace("_", " ")
            no_problem = rule is other_words and not holds_mathematics(pair.old)
            return Judgement("refused", f"{name}: {found}", f"rule {name}", no_problem=no_problem)
    for rule in (same_text, only_label_removed):
        if rule(pair):
            return Judgement("accepted", "ok", f"rule {rule.__name__.replace('_', ' ')}")
    return Judgement("undecided", "no rule decides", differences=tuple(hints(pair.edits)))


def holds_mathematics(old: list[Token]) -> bool:
    """Whether a text has a number, a sign of mathematics, or a question mark."""
    return any(is_number(t) or t in SURE_SIGNS or t[0] == "\\" or t == "?" for t in (token.text for token in old))


def empty(pair: Pair) -> str | None:
    """Nothing is there."""
    return None if pair.new else "no words"


def echo(pair: Pair) -> str | None:
    """The prompt's own words or examples."""
    text = joined(token.text for token in pair.new)
    copied = [one for one in EXAMPLES if (words := joined(spelled(one))) in text and words[:40] not in pair.whole]
    return next((word for word in (*copied, *PROMPT_WORDS) if word in pair.rewrite and word not in pair.post), None)


def cut(pair: Pair) -> str | None:
    """A formula that begins and does not end, where the post's formulas all end."""
    old, new = (re.sub(r"\\[${}]", "", text) for text in (pair.post, pair.rewrite))
    if new.count("$") % 2 and not old.count("$") % 2:
        return "a $ is missing"
    is_open = [(a, b) for a, b in BRACKETS if new.count(a) > new.count(b) and old.count(a) <= old.count(b)]
    return "{} has no {}".format(*is_open[0]) if is_open else None


def too_long(pair: Pair) -> str | None:
    """Longer than the post by more than a fifth."""
    is_long = len(pair.rewrite) > longest_rewrite(pair.post)
    return f"{len(pair.rewrite)} characters for {len(pair.post)}" if is_long else None


def other_script(pair: Pair, least: float = 0.2) -> str | None:
    """Its words are written in a script that the post's words hardly use."""
    main, old = script(pair.rewrite), scripts(pair.post)
    return main if main != "none" and old and old[main] < least * old.total() else None


def other_words(pair: Pair, least: float = 0.5) -> str | None:
    """Less than half of its words, numbers and signs are the post's in the post's order: a refusal, a translation."""
    share = 1 - sum(len(edit.new) for edit in pair.edits) / len(pair.new)
    return f"only {share:.0%} are the post's" if share < least else None


def new_number(pair: Pair) -> str | None:
    """A number that the post does not have, also not as parts: (3,100) may become (3, 100)."""
    known = {token.text for token in pair.old} | set(re.findall(r"\d+", pair.post))
    for token in pair.new:
        parts = re.findall(r"\d+", pair.rewrite[token.start : token.end])
        if is_number(token.text) and token.text not in known and not (len(parts) > 1 and known.issuperset(parts)):
            return token.text
    return None


def new_formula(pair: Pair) -> str | None:
    """A sign that the post does not have, or another sign, number or letter in the place of one."""
    known = {token.text for token in pair.old}
    for edit in pair.edits:
        around = joined(token.text for token in pair.new[max(edit.at - 2, 0) : edit.at + len(edit.new) + 2])
        if edit.old and len(edit.old) == len(edit.new) and all(map(is_symbol, edit.old + edit.new)):
            if around not in pair.whole:
                return str(edit)
        elif any(t in SURE_SIGNS or (t == "\\boxed") for t in edit.new if t not in known):
            return str(edit)
    return None


def gap(pair: Pair, most: int = 4) -> str | None:
    """One to four words, numbers or signs taken out from inside a sentence; cleaning takes away what stands apart."""
    for edit in pair.edits:
        if edit.kind == "removed" and edit.place == "middle" and len(edit.old) <= most:
            around = [token.text for token in pair.new[edit.at - 1 : edit.at + 1]]
            is_twice = edit.old[0] == around[-1] or edit.old[-1] == around[0]
            if len(around) == 2 and not is_twice and not any(map(is_stop, (*around, *edit.old))):
                return str(edit)
    return None


def new_words(pair: Pair, most: int = 4) -> str | None:
    """More than four words in a row that the post does not have in this order; two signs of Chinese are a word."""
    for edit in pair.edits:
        size = sum(0.5 if len(token) == 1 else 1.0 for token in edit.new if is_word(token))
        if size > most and joined(edit.new) not in pair.whole:
            return str(edit)
    return None


def same_text(pair: Pair) -> bool:
    """The same tokens; stops at the ends do not count."""
    return same_dollars(pair) and without_ends(pair.old) == without_ends(pair.new)


def only_label_removed(pair: Pair) -> bool:
    """The post without a label in front of it or a source behind it."""
    kept = without_ends(pair.new)
    before, found, behind = pair.whole.partition(joined(kept))
    start, end = len(before.split()), len(pair.old) - len(behind.split())
    while end < len(pair.old) and pair.old[end].text in ENDS:
        end += 1
    is_clear = bool(kept and found) and found not in f" {behind}" and same_dollars(pair)
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


def joined(words: Iterable[str]) -> str:
    """Tokens with spaces around them."""
    return " ".join(["", *words, ""])


def is_symbol(token: str) -> bool:
    """Whether a token is a sign, a number, a letter, or a name of points such as ABC."""
    return token in SIGNS or is_number(token) or is_letter(token) or (token.isupper() and token.isascii())


def is_stop(token: str) -> bool:
    """Whether a token is punctuation or a bracket."""
    return not token[0].isalnum() and token not in SIGNS and token[0] not in "\\{}"
