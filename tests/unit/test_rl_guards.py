"""What stops an RL run: rewards that do not move, rollouts that are cut, engines that disagree, wild gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from curiosft_cli.run.config import load
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.stages.rl.run import open_guards
from curiosft_cli.train.optim import clip_and_step

HEALTHY = {
    "reward/mean": 0.4,
    "completions/clipped_ratio": 0.1,
    "train/entropy_nats": 0.5,
    "train/mismatch_nats": 0.01,
}


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        ("reward/mean", 0.0, "stuck at 0"),
        ("reward/mean", 1.0, "stuck at 1"),
        ("completions/clipped_ratio", 1.0, "cut"),
        ("train/entropy_nats", 0.001, "collapsed"),
        ("train/mismatch_nats", 0.5, "disagree"),
        ("train/mismatch_nats", float("nan"), "disagree"),
    ],
)
def test_a_breach_is_said_after_its_patience_and_stops_with_code_4(
    tmp_path: Path, metric: str, value: float, said: str
) -> None:
    guards = open_guards(load("grpo", ["rl.guards.action=stop", "rl.guards.patience=3"]).config)
    assert guards.check(1, HEALTHY) == []
    found = [guards.check(step, HEALTHY | {metric: value}) for step in (2, 3, 4)]
    assert found[:2] == [[], []] and len(found[2]) == 1 and said in found[2][0]
    with pytest.raises(CurioError) as stopped:
        guards.stop(found[2])
    assert stopped.value.exit_code == GUARD


@pytest.mark.parametrize(("skip_above", "taken"), [(None, True), (6.0, True), (4.0, False)])
def test_a_gradient_above_the_bound_is_dropped(skip_above: float | None, taken: bool) -> None:
    """The norm of (3, 4) is 5."""
    model = torch.nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norm, stepped = clip_and_step(Accelerator(cpu=True), model, optimizer, 0.1, 1.0, skip_above)
    assert norm == pytest.approx(5.0) and stepped is taken
    assert torch.equal(before, model.weight.detach()) is not taken
    assert model.weight.grad is None
