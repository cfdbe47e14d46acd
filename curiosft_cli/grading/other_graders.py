"""Other graders, for comparison only: the official evaluation's, plain Math-Verify, and equality of strings.

None looks at the region or the format. The official one is plain Math-Verify on the whole completion, or else a
comparison of the last box by string, number or sympy, written from its description: `1e6` is a number to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from curiosft_cli.data.records import Grader, GradeStatus
from curiosft_cli.data.response_format import THINK_CLOSE, answer_region, last_box
from curiosft_cli.grading import symbolic
from curiosft_cli.grading.match import is_within_limits
from curiosft_cli.grading.normalise import squeeze

_UNIT = re.compile(r"\\(?:text|mbox|mathrm)\{[^{}]*\}$|\^\{?\\circ\}?$|\\?%$|\\?\$|\.$")


def official_score(
    text: str, gold: str, timeout_s: float = symbolic.LIBRARY_TIMEOUT_S, *, region: str | None = None
) -> tuple[bool, GradeStatus]:
    """Return whether Math-Verify on the region, or the last box of the whole text, matches; and how it went."""
    matched, status = symbolic.plain_score(text if region is None else region, gold, timeout_s)
    boxed = last_box(text)
    if not matched and boxed is not None and is_within_limits(boxed) and _same_box(boxed, gold, timeout_s):
        return True, "ok"
    return matched, status


def official_reward(text: str, gold: str, timeout_s: float = symbolic.LIBRARY_TIMEOUT_S) -> tuple[bool, GradeStatus]:
    """Return the reward of the authors' RL: the thought must be closed, and Math-Verify reads what follows it."""
    return official_score(text, gold, timeout_s, region=answer_region(text)) if THINK_CLOSE in text else (False, "ok")


def _same_box(boxed: str, gold: str, timeout_s: float, tolerance: float = 1e-6) -> bool:
    ours, theirs = _tidy(boxed), _tidy(gold)
    if ours == theirs:
        return ours != ""
    try:
        return abs(float(ours.replace(",", "")) - float(theirs.replace(",", ""))) < tolerance
    except ValueError:
        return symbolic.equal(ours, theirs, timeout_s)[0]


def _tidy(text: str) -> str:
    text = squeeze(re.sub(r"\\[dt]frac", r"\\frac", text.replace("\\!", "")))
    return _UNIT.sub("", re.sub(r"^\\text\{([^{}]*)\}$", r"\1", text))


def string_score(text: str, gold: str, timeout_s: float = symbolic.LIBRARY_TIMEOUT_S) -> tuple[bool, GradeStatus]:
    """Return whether the last box is the gold, character for character but for white space."""
    return "".join((last_box(text) or "").split()) == "".join(gold.split()), "ok"


OTHER_GRADERS: Mapping[Grader, Callable[[str, str, float], tuple[bool, GradeStatus]]] = {
    "official": official_score,
    "math-verify": symbolic.plain_score,
    "string": string_score,
    "official-reward": official_reward,
}
"""Each takes (completion up to its end token, gold, CPU seconds for each library call)."""

REWARDS: frozenset[Grader] = frozenset({"official-reward"})
"""Rewards of other trainers: the strict score is what they say, whatever the format."""
