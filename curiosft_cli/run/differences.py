"""The table of differences between the paper, the authors' code and our default; docs and command print it."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from textwrap import wrap
from typing import Any


@dataclass(frozen=True)
class Deviation:
    """One row of the table.

    Attributes:
        number: D1..D16.
        topic: what differs.
        paper: the paper's text; "-" where it says nothing.
        official: the authors' public code, or that of a baseline; "-" where it says nothing.
        default: our choice.
        keys: the settings that choose; "-" if there is nothing to choose.
    """

    number: str
    topic: str
    paper: str
    official: str
    default: str
    keys: str


DIFFERENCES = (
    Deviation(
        "D1",
        "teacher update",
        "formula: student weight 0.99; prose: 'decay'",
        "student weight 0.99",
        "student weight 0.99",
        "sft.teacher.student_weight",
    ),
    Deviation(
        "D2",
        "steps of the temperature search",
        "15 halvings",
        "20 halvings",
        "Newton, to float32 rounding",
        "sft.teacher.search, sft.teacher.iters",
    ),
    Deviation(
        "D3",
        "target entropy out of reach",
        "clamp the target, then search",
        "take the end point",
        "take the end point (same within 6e-6)",
        "sft.teacher.clamp",
    ),
    Deviation(
        "D4",
        "low-entropy guard",
        "absent",
        "lowest temperature at full entropy <= 0.03 nats",
        "as the code",
        "sft.teacher.low_entropy_guard",
    ),
    Deviation("D5", "vocabulary below 512", "listing fails", "k = V", "k = min(512, V)", "sft.teacher.topk"),
    Deviation(
        "D6", "K2 term", "sum over t, y without index", "expert token, token mean", "expert token, token mean", "-"
    ),
    Deviation(
        "D7",
        "reduction of the supervised loss",
        "-",
        "mean of the means of 2 rows",
        "global token mean",
        "sft.reduction, sft.micro_batch_rows",
    ),
    Deviation("D8", "precision of the search", "-", "the logits'", "float32", "sft.teacher.search_dtype"),
    Deviation(
        "D9",
        "RL loss",
        "GRPO, clip 0.2 / 0.28",
        "another formula, 0.8 / 1.2",
        "the paper's",
        "rl.objective, rl.params",
    ),
    Deviation("D10", "RL mini-batch, prompts", "64", "32", "64", "rl.mini_batch_prompts"),
    Deviation("D11", "rollout top_p", "0.95", "1.0", "0.95", "rl.top_p"),
    Deviation("D12", "evaluation top_p and grader", "0.95", "1.0, two graders", "0.95", "eval.top_p, eval.grader"),
    Deviation("D13", "RL length", "500 steps", "12 epochs", "500 steps", "rl.steps"),
    Deviation(
        "D14",
        "top-20 % entropy, KL to the base model",
        "no detail",
        "not runnable",
        "step-wide quantile; reverse KL, 0.1",
        "sft.params",
    ),
    Deviation("D15", "GEM's h", "-", "code: linear; launch scripts: logsigmoid", "logsigmoid", "sft.params.gem_h"),
    Deviation(
        "D16",
        "clip of LUFFY and RL-PLUS",
        "Table 6 implies one recipe",
        "their scripts: none",
        "each method's own script",
        "rl.params",
    ),
)


def as_table(width: int = 28) -> str:
    """The table as text, columns at most `width` characters wide."""
    head = Deviation("#", "topic", "paper", "official", "default", "keys")
    rows = [[wrap(cell, width) or [""] for cell in astuple(row)] for row in (head, *DIFFERENCES)]
    widths = [max(len(line) for row in rows for line in row[column]) for column in range(len(rows[0]))]
    lines: list[str] = []
    for row in rows:
        for depth in range(max(len(cell) for cell in row)):
            parts = (cell[depth] if depth < len(cell) else "" for cell in row)
            lines.append("  ".join(f"{part:{size}}" for part, size in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)


def as_markdown() -> str:
    """The table of docs/deviations.md."""
    head = "| # | topic | paper | authors' code | default | keys |\n|---|---|---|---|---|---|\n"
    return head + "".join("| " + " | ".join(astuple(row)) + " |\n" for row in DIFFERENCES)


FIDELITY: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        # D2, D3, D4: the listing of Appendix D clamps the target, bisects 15 times, and has no low-entropy guard.
        "sft": {"teacher": {"search": "bisect", "iters": 15, "clamp": "target", "low_entropy_guard": "none"}},
    },
    "official": {
        # D2, D7, D8: 20 halvings in the logits' precision; each micro-batch's own token mean, averaged.
        "sft": {
            "teacher": {"search": "bisect", "iters": 20, "search_dtype": "logits"},
            "reduction": "micro_token_mean",
        },
        # D9, D10, D11: the code's RL loss, 32 prompts per update, untruncated sampling.
        "rl": {"objective": "curio_official", "mini_batch_prompts": 32, "top_p": 1.0},
        # D12: validation never sets top_p; the code grades the whole response with two graders.
        "eval": {"top_p": 1.0, "grader": "official"},
    },
}
