"""Several ranks in one launch that train one run after another: the imports, most of the time of a launch, count once.

A run is a stage, a recipe and settings. Where `until` stands among the settings, the ranks get SIGTERM in that step.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from curiosft_cli.run.errors import TERMINATED
from curiosft_cli.run.processes import free_port

Run = Sequence[str]


def train_on(ranks: int, runs: Sequence[Run], *, limit_s: float = 300) -> None:
    """Train these runs with so many ranks on the CPU, as a launcher of the user's own would."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
    command = [*launcher, "--master_port", str(free_port()), str(Path(__file__)), json.dumps(runs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s)
    assert done.returncode == 0, done.stderr[-4000:]


def train(stage: str, recipe: str, *settings: str) -> None:
    """Train one run in this process, which is the only rank or one of several."""
    import torch

    from curiosft_cli.run.config import load
    from curiosft_cli.tools.pipeline import run_stages
    from curiosft_cli.train.loop import Loop

    until = next((int(setting.removeprefix("until=")) for setting in settings if setting.startswith("until=")), None)
    resolved = load(recipe, [setting for setting in settings if not setting.startswith("until=")])
    real, calls = Loop.update, []
    compile_module = torch.nn.Module.compile

    def traced(module: torch.nn.Module, **options: Any) -> None:
        """The graph is made as ever and run uncompiled: a compiler would take minutes, and need not be there."""
        compile_module(module, **options, backend="eager")

    def update(loop: Loop, *arguments: float) -> None:
        real(loop, *arguments)
        calls.append(loop)
        if len(calls) == until:
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(Loop, "update", update), mock.patch.object(torch.nn.Module, "compile", traced):
        try:
            run_stages(resolved, (stage,))
        except SystemExit as end:
            assert until and end.code == TERMINATED


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    for run in json.loads(sys.argv[1]):
        train(*run)
