"""The last lines of a stage: its figures, its checkpoint, and the command that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from curiosft_cli.run.config import load
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.tools.stage_summary import next_command, summary


@pytest.mark.parametrize(
    ("stage", "recipe", "more", "command"),
    [
        ("rephrase", "quickstart", (), "curiosft sft quickstart run.name=a 'model.system_prompt=b c'"),
        ("sft", "quickstart", (), "curiosft rl quickstart run.name=a 'model.system_prompt=b c'"),
        ("sft", "curio", (), "curiosft eval curio run.name=a 'model.system_prompt=b c'"),
        ("sft", "curio", ("--multi_gpu",), "curiosft eval curio run.name=a 'model.system_prompt=b c' -- --multi_gpu"),
        ("eval", "quickstart", (), "curiosft compare runs/a/eval"),
        ("eval", "sft", (), "curiosft report runs/a"),
    ],
)
def test_the_next_command_keeps_the_settings(stage: str, recipe: str, more: tuple[str, ...], command: str) -> None:
    assert next_command(stage, load(recipe, ["run.name=a", "model.system_prompt=b c"]), more) == command


def test_figures_that_are_absent_or_not_finite_are_left_out(tmp_path: Path) -> None:
    stage = StageDir(tmp_path)
    assert summary("eval", stage, 59.6) == ["eval: complete in 1 min 0 s"]
    stage.metrics_file.write_text('{"step": 1}\n{"step": 2, "train/loss_nats": null, "reward/mean": 0.25}\n')
    assert summary("rl", stage, 7.0) == ["rl: complete in 7 s; step 2: reward 0.250"]
