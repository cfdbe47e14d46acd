"""What a reader may want to look at in a cleaned question; nothing is decided by it."""

from __future__ import annotations

import re

from curiosft_cli.stages.rephrase.judge.normalise import spelled
from curiosft_cli.stages.rephrase.judge.rules import holds_mathematics

IMAGE = re.compile(
    r"!\[|\[asy\]|\\includegraphics|\[img|\b(?:figure|diagram|picture|image|graph)\s+(?:below|above|shows?|shown|on)"
    r"|\b(?:as\s+shown|shown\s+(?:below|above|in)|in\s+the\s+(?:figure|diagram|picture|image))\b|如图",
    re.IGNORECASE,
)
PART = re.compile(r"(?<![\w)\]}^_\\])\((?:\d|[ivx]{1,3}|[a-e])\)")
# What a question refers to and does not hold, and ends that no question has.
ELSEWHERE = re.compile(
    r"\b(?:(?:previous|preceding|last|earlier)\s+(?:problem|question|exercise|part|example|task)"
    r"|(?:part|problem|question|exercise)\s+(?:\([a-z\d]\)|\d+)\s+(?:above|again)|same\s+as\s+(?:above|before)"
    r"|(?:table|text|passage|data)\s+(?:above|below))\b",
    re.IGNORECASE,
)
CUT_OFF = re.compile(
    r"(?:[,;(\[{=+*/<>-]|\\\w+|\b(?:and|or|the|of|with|that|if|is|are|by|to|for|from|than|let))$", re.IGNORECASE
)


def flags(question: str, post: str = "") -> list[str]:
    """`several questions`, `image`, `fragment` (it cannot be answered alone).

    Args:
        question: what will be trained on.
        post: what it was made from: words about an image may be gone from the question, which still needs it.
    """
    found = []
    if question.count("?") + question.count("？") > 1 or len(set(PART.findall(question))) > 1:
        found.append("several questions")
    if IMAGE.search(f"{question}\n{post}"):
        found.append("image")
    words = spelled(question)
    is_problem = "image" in found or "$" in question or "?" in words or holds_mathematics(words)
    if not is_problem or ELSEWHERE.search(question) or CUT_OFF.search(question.rstrip()):
        found.append("fragment")
    return found
