"""`curiosft quickstart`: the whole pipeline on a small real model, by its shipped recipe, with one table at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from curiosft_cli.run.config import Resolved, load, parse_overrides
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import RunDir
from curiosft_cli.run.text import show
from curiosft_cli.tools.pipeline import run_stages
from curiosft_cli.tools.quickstart_model import quickstart_model

RECIPE = "quickstart"


def quickstart(overrides: Sequence[str], *, fresh: bool = False) -> None:
    """Run or continue the quickstart and print its table to stdout."""
    if "path" in parse_overrides(overrides).get("model", {}):
        resolved = load(RECIPE, overrides)
    else:
        load(RECIPE, overrides)  # stops at a misspelt key before anything is downloaded
        resolved = load(RECIPE, [f"model.path={json.dumps(str(quickstart_model(Console())))}", *overrides])
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
