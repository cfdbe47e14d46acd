"""Run stages in order inside one run folder, each in its own processes. Complete stages are skipped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from curiosft_cli.run.config import Resolved
from curiosft_cli.run.launch import is_first, launch
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import RunDir, opened
from curiosft_cli.tools.model.check import require_sound_models
from curiosft_cli.tools.stage_summary import summary

STAGE_MODULES = {
    "rephrase": "curiosft_cli.stages.rephrase.run",
    "sft": "curiosft_cli.stages.sft",
    "rl": "curiosft_cli.stages.rl.run",
    "eval": "curiosft_cli.stages.evaluate.run",
}
THROUGH_ACCELERATE = frozenset({"sft", "rl"})


def run_stages(
    resolved: Resolved,
    stages: Sequence[str],
    *,
    fresh: bool = False,
    accelerate_arguments: Sequence[str] = (),
) -> dict[str, float]:
    """Run or continue these stages; return the seconds of each (0 if it was complete before).

    Raises:
        CurioError: a stage's folder belongs to other settings, or the stage stopped with a message.
    """
    config = resolved.config
    run = RunDir(Path(config.run.root) / config.run.name)
    console = Console()
    seconds: dict[str, float] = {}
    first = is_first(accelerate_arguments)
    for name in stages:
        folder, started = config.eval.name if name == "eval" else name, time.monotonic()
        with opened(run, name, config, fresh=fresh, folder=folder, first=first) as (stage, complete):
            if complete:
                console.say(f"{name}: complete already, in {stage.path}")
                seconds[name] = 0.0
                continue
            run.keep_source(resolved.source)
            console.say(f"{name}: {stage.path}")
            if first:
                require_sound_models(name, stage, config, console)
            launch(STAGE_MODULES[name], stage, config, accelerate_arguments, accelerate=name in THROUGH_ACCELERATE)
            seconds[name] = time.monotonic() - started
            for line in summary(name, stage, seconds[name]) if first else ():
                console.say(line)
    return seconds


def run_preflight(resolved: Resolved) -> None:
    """Check prompt, stop tokens, reward and sampling of the rl stage without training; print the table to stdout.

    Raises:
        CurioError: a check failed (exit code 4).
    """
    config = resolved.config
    run = RunDir(Path(config.run.root) / config.run.name)
    with opened(run, "rl", config, fresh=True, folder="rl-preflight") as (stage, _):
        require_sound_models("rl", stage, config, Console())
        launch("curiosft_cli.stages.rl.preflight", stage, config, accelerate=False)
