"""What a stage says when it is complete: how long it took, its last figures, its checkpoint, and the next command."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Sequence
from typing import get_args

from curiosft_cli.run.config import Resolved
from curiosft_cli.run.files import read_jsonl
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections.base import Stage

FIGURES = {
    "train/loss_nats": "loss {:.3f} nats",
    "train/entropy_nats": "entropy {:.3f} nats",
    "reward/mean": "reward {:.3f}",
    "eval/loss_nats": "held-out loss {:.3f} nats",
    "eval/avg": "score {:.1f} %",
    "tokens/s": "{:,.0f} tokens/s",
}
"""Metrics of the last step that are shown, in this order."""


def summary(name: str, stage: StageDir, seconds: float) -> list[str]:
    """One line with the time and the last figures; one with the checkpoint where there is one."""
    last: dict[str, float | None] = next(iter(deque(read_jsonl(stage.metrics_file), maxlen=1)), {})
    shown = [form.format(value) for key, form in FIGURES.items() if (value := last.get(key)) is not None]
    minutes, rest = divmod(round(seconds), 60)
    spent = f"{minutes} min {rest} s" if minutes else f"{rest} s"
    lines = [f"{name}: complete in {spent}" + (f"; step {last['step']}: {', '.join(shown)}" if shown else "")]
    if steps := stage.checkpoints():
        lines.append(f"{name}: checkpoint {stage.checkpoint(steps[-1])}")
    return lines


def next_command(name: str, resolved: Resolved, accelerate_arguments: Sequence[str] = ()) -> str:
    """The command of the stage that follows in `run.stages`; where none does, a comparison or a report."""
    config = resolved.config
    order = get_args(Stage)
    later = [stage for stage in order[order.index(name) + 1 :] if stage in config.run.stages]
    if later:
        launcher = ["--", *accelerate_arguments] if accelerate_arguments else []
        return shlex.join(["curiosft", later[0], *resolved.arguments, *launcher])
    folder = f"{config.run.root}/{config.run.name}"
    several = len(config.eval.checkpoints) > 1
    return shlex.join(
        ["curiosft", "compare", f"{folder}/{config.eval.name}"] if several else ["curiosft", "report", folder]
    )
