"""`curiosft quickstart`: the whole pipeline on a small real model, by its shipped recipe, with one table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curiosft_cli.run.config import Resolved, load
from curiosft_cli.run.rundir import RunDir
from curiosft_cli.run.text import show
from curiosft_cli.tools.pipeline import run_stages

RECIPE = "quickstart"
WHOLE = {"run.stages": '["rephrase", "sft", "rl", "eval"]', "data.train": '["rephrase", "arithmetic:train:512"]'}
"""What the command adds to the recipe, which trains without cleaned questions. The user's own values win."""


def quickstart(overrides: Sequence[str], *, fresh: bool = False) -> None:
    """Run or continue the quickstart and print its table to stdout."""
    given = {setting.partition("=")[0] for setting in overrides}
    resolved = load(RECIPE, [*(f"{key}={value}" for key, value in WHOLE.items() if key not in given), *overrides])
    seconds = run_stages(resolved, resolved.config.run.stages, fresh=fresh)
    show(report(resolved, seconds))


def report(resolved: Resolved, seconds: dict[str, float]) -> str:
    """The text at the end: results of base, sft and rl, seconds per stage, the run folder, what to try next."""
    from curiosft_cli.tools.results_report import results_report

    config = resolved.config
    run = RunDir(Path(config.run.root) / config.run.name)
    spent = ", ".join(
        f"{name} {value:.0f} s" if value else f"{name} complete before" for name, value in seconds.items()
    )
    lines = [
        "",
        results_report(run.stage(config.eval.name)),
        "",
        f"time: {spent}",
        f"run folder: {run.path}",
        f"next: curiosft quickstart run.name=plain sft.objective=sft    (plain SFT, to compare with {run.path})",
    ]
    return "\n".join(lines)
