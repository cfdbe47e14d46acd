"""Checks on a rewritten question: whatever changed the problem is not used.

Every number, formula and mathematical term of the problem must survive where it stood, none may be new, and nothing
but the problem may be there. Cleaning takes away; it does not rephrase.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from curiosft_cli.data.prompts import REPHRASE_PROMPT
from curiosft_cli.stages.rephrase.post_patterns import ANSWER_TOLD
from curiosft_cli.stages.rephrase.posts import Post, asks, read_post
from curiosft_cli.stages.rephrase.text import (
    FREE_WORDS,
    all_words,
    carries,
    content_words,
    formulas,
    is_number,
    letters,
    long_words,
    measures,
    names,
    only_numbers,
    points,
    quantities,
    same_word,
    script,
    squeezed,
)

LONGEST = 10_000
"""Characters of the longest post or answer that is judged (our choice)."""
GUARD_MODULES = ("checks", "post_patterns", "posts", "text")
STRICTER = """

Write the problem statement alone. Copy its words: every number, formula, unit, name and condition stays exactly as it is given. Add nothing: no heading, no comment, no solution, no answer."""  # noqa: E501

_REFUSAL = re.compile(
    r"\b(?:I['’]?m\s+sorry|I\s+(?:cannot|can['’]t|am\s+unable|apologi[sz]e)|as\s+an\s+AI|no\s+(?:math\w*\s+)?problem\s+(?:was\s+|is\s+)?"
    r"(?:found|given|provided|present|statement)|(?:does|do)\s+not\s+contain\s+a\s+(?:math|problem))",
    re.IGNORECASE,
)
_COMMENTARY = re.compile(
    r"^\W*(?:sure|certainly|of\s+course|okay|ok|absolutely|here(?:['’]s|\s+is|\s+are)|the\s+(?:extracted|cleaned|problem\s+is)"
    r"|extracted|below\s+is|this\s+is\s+the|got\s+it|thanks?|hi|hello)\b"
    r"|\b(?:let\s+me\s+know|hope\s+this\s+helps|I(?:['’]ve|\s+have)?\s+(?:removed|extracted|cleaned|kept|corrected|changed|rewr\w+)"
    r"|has\s+been\s+(?:removed|cleaned|extracted)|(?:note|comment|explanation|changes?)\s*:|the\s+original\s+(?:post|text)"
    r"|irrelevant|problem\s+statement\b|the\s+post)",
    re.IGNORECASE,
)
_SOLUTION = re.compile(
    r"\bfinal\s+answer\b|\banswer\s*[:=]|\b(?:solution|proof|step\s+\d+|hint)\s*[:.]|\btherefore\b|\bthus\b|\bhence\b"
    r"|\bwe\s+(?:get|obtain|find|have\s+that|conclude|see)\b|\bso\s+the\s+(?:answer|result|value)\b|\\therefore|\\implies"
    r"|\b(?:first|now),\s+we\b|\bit\s+follows\b|答案|解[:：]",
    re.IGNORECASE,
)
_PROMPT_WORDS = ("Example 1:", "Example 2:", "Input:", "Output:", "math-related forum", "Here are a few examples")
_EXAMPLES = tuple(
    part.partition("Output:")[2].strip().partition("\n")[0]
    for part in REPHRASE_PROMPT.partition("Now, here is")[0].split("Example ")[1:]
)
# What a question refers to and does not hold, and ends that no question has.
_ELSEWHERE = re.compile(
    r"\b(?:(?:previous|preceding|last|earlier)\s+(?:problem|question|exercise|part|example|task)"
    r"|(?:part|problem|question|exercise)\s+(?:\([a-z\d]\)|\d+)\s+(?:above|again)|same\s+as\s+(?:above|before)"
    r"|(?:table|text|passage|data)\s+(?:above|below))\b",
    re.IGNORECASE,
)
_CUT_OFF = re.compile(
    r"(?:[,;(\[{=+*/<>-]|\\\w+|\b(?:and|or|the|of|with|that|if|is|are|by|to|for|from|than|let))$", re.IGNORECASE
)
_WRAPPING = re.compile(
    r"^\s*(?:```\w*\n|\*{0,2}(?:output|(?:the\s+)?(?:extracted\s+|cleaned\s+|math\s+)?(?:problem|question)(?:\s+statement)?(?:\s+is)?)\*{0,2}\s*:\s*\*{0,2}\s*)"
    r"|\s*```\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Verdict:
    """What becomes of an answer.

    Attributes:
        outcome: "accepted"; "kept_original" when the answer is not used; "rejected" when the post is no problem either.
        reason: "ok", or the first check that failed and what it found.
    """

    outcome: Literal["accepted", "kept_original", "rejected"]
    reason: str


def longest_rewrite(original: str, ratio: float = 1.2, slack: int = 10) -> int:
    """Characters beyond which an answer is no cleaning of this post (our choice)."""
    return int(ratio * len(original)) + slack


@cache
def guards_version() -> str:
    """Identity of the checks, so that a saved verdict is made again after they changed."""
    parts = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in GUARD_MODULES]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def is_too_long(question: str, most: int = LONGEST) -> bool:
    """Whether no answer to this post could be judged, so that asking would be money for nothing."""
    return len(question) > most


def judge(original: str, rewritten: str, *, shortest: float = 0.5, most: int = LONGEST) -> Verdict:
    """Accept a rewrite only if it still is the same problem and nothing else.

    Args:
        original: the post.
        rewritten: the model's answer.
        shortest: least length by that of the post's problem part, in characters.
        most: longest post or answer that is looked at, in characters.
    """
    if len(original) > most or len(rewritten) > most:
        return Verdict("kept_original", f"too long to judge: {max(len(original), len(rewritten))} characters")
    text = tidy(rewritten)
    post = without_opening(read_post(original), text)
    reason = (
        misses_the_task(original, post, text)
        or wrong_size(original, post, text, shortest)
        or changed_quantities(post, text)
        or changed_formulas(original, post, text)
        or keeps_chat(post, text)
        or changed_names(post, text)
        or changed_wording(original, post, text)
    )
    if reason is None:
        return Verdict("accepted", "ok")
    is_problem = asks(post.needed) or bool(only_numbers(quantities(post.needed))) or bool(formulas(post.needed))
    return Verdict("kept_original" if is_problem else "rejected", reason)


def tidy(rewritten: str) -> str:
    """The answer without code fences and without a label such as `Output:` in front."""
    return _WRAPPING.sub("", rewritten.strip()).strip()


def flags(question: str, post: str = "") -> list[str]:
    """What a reader may want to look at: `several questions`, `image`, `fragment` (it cannot be answered alone).

    Args:
        question: what will be trained on.
        post: what it was made from: words about an image may be gone from the question, which still needs it.
    """
    found = []
    labelled = re.findall(r"(?<![\w)\]}^_\\])\((?:\d|[ivx]{1,3}|[a-e])\)", question)
    if question.count("?") > 1 or len(set(labelled)) > 1:
        found.append("several questions")
    if re.search(
        r"!\[|\[asy\]|\\includegraphics|\[img|\b(?:figure|diagram|picture|image|graph)\s+(?:below|above|shows?|shown|on)"
        r"|\b(?:as\s+shown|shown\s+(?:below|above|in)|in\s+the\s+(?:figure|diagram|picture|image))\b",
        f"{question}\n{post}",
        re.IGNORECASE,
    ):
        found.append("image")
    if not asks(question) or _ELSEWHERE.search(question) or _CUT_OFF.search(question.rstrip()):
        found.append("fragment")
    return found


def without_opening(post: Post, text: str) -> Post:
    """The post without the sentences that the rewrite drops in front of its own first one, if they carry nothing."""
    there, flat = set(long_words(text)), squeezed(text)
    found = (
        index
        for index, sentence in enumerate(post.problem)
        if is_there(sentence, there) or any(formula in flat for formula in formulas(sentence))
    )
    first = next(found, 0)
    return replace(post, problem=tuple(part for part in post.problem[:first] if carries(part)) + post.problem[first:])


def is_there(sentence: str, words: set[str], least: float = 0.4) -> bool:
    """Whether enough of a sentence's content words are among these words."""
    content = content_words(sentence)
    return bool(content) and len(content & words) >= least * len(content)


def misses_the_task(original: str, post: Post, text: str) -> str | None:
    """Empty, a refusal, the prompt's own example, commentary, a solution, another language, or no question."""
    flat, problem = squeezed(text), post.allowed
    if not text:
        return "empty"
    if _REFUSAL.search(text) and not _REFUSAL.search(original):
        return "refusal"
    copied = [example for example in _EXAMPLES if squeezed(example) in flat]
    foreign = [formula for example in copied for formula in formulas(example) if formula not in squeezed(original)]
    if foreign or any(word in text and word not in original for word in _PROMPT_WORDS):
        return "echoes the prompt"
    if (found := _COMMENTARY.search(text)) and found[0].lower() not in problem.lower():
        return f"commentary: {found[0].strip()}"
    if (found := _SOLUTION.search(text) or ANSWER_TOLD.search(text)) and found[0].lower() not in problem.lower():
        return f"solution leaked: {found[0].strip()}"
    if script(text) not in {script(problem), script(original)}:
        return f"language: {script(text)}"
    return "no question" if asks(problem) and not asks(text) else None


def wrong_size(original: str, post: Post, text: str, shortest: float) -> str | None:
    """Much longer than the post, or much shorter than its problem."""
    if len(text) > longest_rewrite(original):
        return f"too long: {len(text)} characters for {len(original)}"
    if len(text) < shortest * len(post.needed):
        return f"too short: {len(text)} characters for {len(post.needed)}"
    return None


def changed_quantities(post: Post, text: str) -> str | None:
    """A number or a mathematical term of the problem is gone, or one is new or stands elsewhere.

    Cleaning only takes away, so the numbers and terms of the rewrite come in the problem's order; numbers of labels
    may be left in.
    """
    needed, there, allowed = (quantities(part) for part in (post.needed, text, post.allowed))
    if lost := only_numbers(needed) - only_numbers(there):
        return f"number lost: {min(lost)}"
    if lost_terms := {token for token in needed if not is_number(token)} - set(there):
        return f"term lost: {min(lost_terms)}"
    extra = Counter(there) - Counter(allowed)
    if added := extra - Counter(quantities(" ".join(post.labels))):
        return f"{_kind(min(added))} added: {min(added)}"
    if changed := measures(post.needed) - measures(text) or measures(text) - measures(post.allowed):
        return f"unit changed: {min(changed)}"
    place = 0
    for token in there:
        if token in allowed[place:]:
            place = allowed.index(token, place) + 1
        elif extra[token]:
            extra[token] -= 1
        else:
            return f"{_kind(token)} moved: {token}"
    return None


def _kind(token: str) -> str:
    return "number" if is_number(token) else "term"


def changed_formulas(original: str, post: Post, text: str) -> str | None:
    """A formula of the problem is not there as it was, or a formula is new."""
    flat, whole = squeezed(text), squeezed(original)
    for formula in formulas(post.needed):
        if formula not in flat:
            return f"formula lost: {formula}"
    for formula in formulas(text):
        if formula not in whole:
            return f"formula added: {formula}"
    return None


def keeps_chat(post: Post, text: str, shortest: int = 12) -> str | None:
    """A sentence of the post that is not the problem's stands in the rewrite."""
    flat, problem = squeezed(text).lower(), squeezed(post.allowed).lower()
    for sentence in post.chat:
        for part in (sentence, sentence.partition(":")[2]):
            chat = squeezed(part).lower().rstrip(".!")
            if len(chat) >= shortest and chat in flat and chat not in problem:
                return f"chat kept: {part}"
    return None


def changed_names(post: Post, text: str) -> str | None:
    """A name is gone, or new, or stands elsewhere: Ben is asked about in place of Ana."""
    if lost := points(post.needed) - points(text):
        return f"name lost: {min(lost)}"
    known, there = names(post.allowed), names(text)
    if added := {name for name in there if name.lower() not in set(all_words(post.allowed))}:
        return f"name added: {min(added)}"
    both = set(known) | set(there)
    order = iter(word for word in all_words(post.allowed, keep_case=True) if word in both)
    for name in (word for word in all_words(text, keep_case=True) if word in both):
        if name not in order:
            return f"name moved: {name}"
    order = iter([*letters(" ".join(post.labels)), *letters(post.allowed)])
    return next((f"letter moved: {letter}" for letter in letters(text) if letter not in order), None)


def changed_wording(original: str, post: Post, text: str, kept: float = 0.7) -> str | None:
    """Less than `kept` of the problem's words survive, one of its sentences does not, or a word is new."""
    needed, there = (set(long_words(part)) for part in (post.needed, text))
    source = set(re.findall(r"[^\W\d_]+", original.lower()))  # words inside formulas too: \text{Simplify}
    needed -= FREE_WORDS
    if len(needed) > 4 and len(needed & there) < kept * len(needed):
        return f"words lost: {', '.join(sorted(needed - there)[:5])}"
    for sentence in post.problem:
        if content_words(sentence) and not is_there(sentence, there):
            return f"sentence lost: {sentence}"
    for word in sorted(there - source - FREE_WORDS):
        if not any(same_word(word, other) for other in source):
            return f"word added: {word}"
    return None
