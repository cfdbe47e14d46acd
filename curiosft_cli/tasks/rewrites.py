"""Checks on a rewritten question: a changed number would ruin a training row."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

NUMBER = re.compile(r"\d+(?:\.\d+)?")
# Numbers that belong to the post, not to the problem: points, problem numbers, years of a contest.
POST_NUMBERS = re.compile(
    r"\(\s*\d+\s*(?:points?|pts?|marks?|分)\s*\)|\[\s*\d+\s*(?:points?|pts?|marks?)\s*\]"
    r"|\b(?:problem|question|exercise|example|no\.?|#)\s*\d+\s*[.:)]",
    re.IGNORECASE,
)
COMMENTARY = re.compile(
    r"^\s*(?:sure|certainly|of course|here is|here's|the (?:extracted|cleaned)|output\s*:)", re.IGNORECASE
)
ANSWER = re.compile(r"\\boxed|the (?:final )?answer is|answer\s*:|solution\s*:", re.IGNORECASE)
MARKERS = ("Example 1", "Example 2", "Input:", "Output:", "8^6 + 7^7")


@dataclass(frozen=True)
class Verdict:
    """What becomes of an answer.

    Attributes:
        outcome: "accepted", or "kept_original" when the answer is not used.
        reason: "ok", or the first check that failed.
    """

    outcome: Literal["accepted", "kept_original"]
    reason: str


def judge(original: str, rewritten: str, *, shortest: float = 0.2, longest: float = 1.2) -> Verdict:
    """Accept a rewrite only if it still is the same problem.

    Args:
        original: the post.
        rewritten: the model's answer.
        shortest: least share of the post's length, in characters.
        longest: greatest share (our choice: cleaning removes, it hardly adds).
    """
    text = rewritten.strip()
    checks = {
        "empty": not text,
        "echoes the prompt": any(marker in text and marker not in original for marker in MARKERS),
        "commentary": bool(COMMENTARY.match(text)) and not COMMENTARY.match(original),
        "answer leaked": bool(ANSWER.search(text)) and not ANSWER.search(original),
        "number changed": _numbers(_problem_text(original)) != _numbers(_problem_text(text)),
        "too short": len(text) < shortest * len(original),
        "too long": len(text) > longest * len(original),
        "no question": "?" in original and "?" not in text,
    }
    failed = next((reason for reason, hit in checks.items() if hit), None)
    return Verdict("kept_original", failed) if failed else Verdict("accepted", "ok")


def _problem_text(text: str) -> str:
    return POST_NUMBERS.sub(" ", text)


def _numbers(text: str) -> Counter[str]:
    return Counter(NUMBER.findall(text))
