"""What can be decided about a rewrite without understanding it; everything else is undecided.

A rule refuses what no cleaning does, or accepts what takes away nothing but a label. It knows no language: it compares
tokens, and where a text differs it looks at numbers, signs, letters and brackets only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

from curiosft_cli.data.prompts import REPHRASE_PROMPT
from curiosft_cli.stages.rephrase.judge.diff import Edit, aligned, hints
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
ENDS = frozenset('.,;:!"')


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
    """A post and its rewrite, taken apart when needed."""

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
    def changes(self) -> list[Edit]:
        """The spans that differ."""
        return aligned(self.post, self.old, self.rewrite, self.new)


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
    for name, refuses in REFUSING.items():
        if found := refuses(pair):
            is_chat = name == "other words" and not holds_mathematics(pair.old)
            return Judgement("refused", f"{name}: {found}", f"rule {name}", no_problem=is_chat)
    for name, accepts in ACCEPTING.items():
        if accepts(pair):
            return Judgement("accepted", "ok", f"rule {name}")
    return Judgement("undecided", "no rule decides", differences=tuple(hints(pair.changes)))


def holds_mathematics(old: list[Token]) -> bool:
    """Whether a post has a number, a sign, a letter of its own, or a question mark."""
    return any(is_number(t) or t in SURE_SIGNS or t[0] == "\\" or t == "?" for t in (x.text for x in old))


def empty(pair: Pair) -> str | None:
    """Nothing is there."""
    return None if pair.new else "no words"


def echo(pair: Pair) -> str | None:
    """The prompt's own words or examples."""
    flat, whole = " ".join(token.text for token in pair.new), " ".join(token.text for token in pair.old)
    for example in EXAMPLES:
        if (words := " ".join(spelled(example))) in flat and words[:40] not in whole:
            return example
    return next((word for word in PROMPT_WORDS if word in pair.rewrite and word not in pair.post), None)


def cut(pair: Pair) -> str | None:
    """A formula that begins and does not end, where the post's formulas all end."""
    for opening, closing in (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("\\begin", "\\end"), ("{", "}")):

        def is_open(text: str, opening: str = opening, closing: str = closing) -> bool:
            plain = text.replace("\\$", "").replace("\\{", "").replace("\\}", "")
            return plain.count("$") % 2 == 1 if opening == "$" else plain.count(opening) > plain.count(closing)

        if is_open(pair.rewrite) and not is_open(pair.post):
            return f"{opening} has no {closing}"
    return None


def too_long(pair: Pair) -> str | None:
    """Longer than the post by more than a fifth."""
    most = longest_rewrite(pair.post)
    return f"{len(pair.rewrite)} characters for {len(pair.post)}" if len(pair.rewrite) > most else None


def other_script(pair: Pair, least: float = 0.2) -> str | None:
    """Its words are written in a script that the post's words hardly use."""
    main, old = script(pair.rewrite), scripts(pair.post)
    return main if main != "none" and old and old[main] < least * old.total() else None


def other_words(pair: Pair, least: float = 0.5) -> str | None:
    """Less than half of its words, numbers and signs are the post's in the post's order: a refusal, a translation."""
    put_in = sum(len(tokens(change.after)) for change in pair.changes)
    share = 1 - put_in / len(pair.new)
    return f"only {share:.0%} are the post's" if share < least else None


def new_number(pair: Pair) -> str | None:
    """A number that the post does not have."""
    known = {token.text for token in pair.old} | set(re.findall(r"\d+", pair.post))
    for token in pair.new:
        if is_number(token.text) and token.text not in known:
            parts = re.findall(r"\d+", pair.rewrite[token.start : token.end])
            if len(parts) < 2 or not known.issuperset(parts):
                return token.text
    return None


def new_formula(pair: Pair) -> str | None:
    """A sign that the post does not have, or another sign, number or letter in the place of one in a formula."""
    known, whole = {token.text for token in pair.old}, _flat(pair.old)
    for change in pair.changes:
        old, new = spelled(change.before), spelled(change.after)
        if any(token in SURE_SIGNS and token not in known for token in new):
            return str(change)
        are_signs = all(token in SIGNS or is_number(token) or is_letter(token) for token in old + new)
        if (
            old
            and len(old) == len(new)
            and are_signs
            and _flat(pair.new[change.at - 1 : change.at + len(new) + 1]) not in whole
        ):
            return str(change)
    return None


def gap(pair: Pair, most: int = 4) -> str | None:
    """One to four words, numbers or signs taken out from inside a sentence; cleaning takes away what stands apart."""
    for change in pair.changes:
        words = spelled(change.before)
        if change.kind != "removed" or change.place != "middle" or len(words) > most:
            continue
        before, after = (pair.new[at].text if at < len(pair.new) else "." for at in (change.at - 1, change.at))
        is_double = words[0] == after or words[-1] == before
        if not is_double and not any(_is_stop(word) for word in (before, *words, after)):
            return str(change)
    return None


def new_words(pair: Pair, most: int = 4) -> str | None:
    """More than four words in a row that the post does not have in this order."""
    whole = _flat(pair.old)
    for change in pair.changes:
        words = [token for token in spelled(change.after) if is_word(token)]
        size = len(words) - sum(len(word) == 1 for word in words) / 2  # signs of Chinese are half a word
        if size > most and " ".join(["", *spelled(change.after), ""]) not in whole:
            return str(change)
    return None


def _flat(part: list[Token]) -> str:
    return " ".join(["", *(token.text for token in part), ""])


def _is_stop(token: str) -> bool:
    return not token[0].isalnum() and token not in SIGNS and token[0] != "\\" and token not in "{}"


def same_text(pair: Pair) -> bool:
    """The same tokens; stops at the ends do not count."""
    return _without_ends(pair.old) == _without_ends(pair.new) and _same_dollars(pair)


def only_label_removed(pair: Pair) -> bool:
    """The post without a label in front of it or a source behind it."""
    old, new = [token.text for token in pair.old], _without_ends(pair.new)
    places = [at for at in range(len(old) - len(new) + 1) if old[at : at + len(new)] == new]
    if len(places) != 1 or not _same_dollars(pair):
        return False
    start, end = places[0], places[0] + len(new)
    while end < len(old) and old[end] in ENDS:
        end += 1
    return is_label(pair.post, pair.old, 0, start) and is_label(pair.post, pair.old, end, len(old))


def _without_ends(text: list[Token]) -> list[str]:
    words = [token.text for token in text]
    while words and words[-1] in ENDS:
        words.pop()
    return words


def _same_dollars(pair: Pair) -> bool:
    """Whether dollars that may be money are still there, since dollars around formulas are no tokens."""
    money = re.compile(r"\$\s?\d")
    return (
        len(money.findall(pair.rewrite)) == len(money.findall(pair.post)) or "$" not in pair.post or "\\" in pair.post
    )


REFUSING: dict[str, Callable[[Pair], str | None]] = {
    "empty": empty,
    "echo": echo,
    "cut": cut,
    "too long": too_long,
    "other script": other_script,
    "other words": other_words,
    "new number": new_number,
    "new formula": new_formula,
    "gap": gap,
    "new words": new_words,
}
ACCEPTING: dict[str, Callable[[Pair], bool]] = {"same text": same_text, "only a label removed": only_label_removed}
