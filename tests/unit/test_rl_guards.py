"""What stops an RL run: rewards that do not move, rollouts that are cut, engines that disagree, wild gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curiosft_cli.run.config import load
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.stages.rl.rollouts import why_no_reward
from curiosft_cli.stages.rl.run import open_guards
from curiosft_cli.train.guards import stop
from curiosft_cli.train.optim import clip_and_step

HEALTHY = {
    "reward/mean": 0.4,
    "reward/answer": 0.4,
    "reward/format": 0.9,
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
    assert found[:2] == [[], []] and len(found[2]) == 1 and said in found[2][0].says
    with pytest.raises(CurioError) as stopped:
        stop(found[2])
    assert stopped.value.exit_code == GUARD


@pytest.mark.parametrize(("method", "stops"), [("grpo", True), ("luffy", False)])
def test_no_reward_stops_a_method_without_expert_rows(method: str, stops: bool) -> None:
    guards = open_guards(load(method, ["rl.guards.patience=1"]).config)
    [found] = guards.check(1, HEALTHY | {"reward/mean": 0.0})
    assert found.stops is stops


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"reward/grader_timeout": 0.4, "reward/grader_crash": 0.2}, "the grader failed on 60%"),
        ({"reward/answer": 0.3, "reward/format": 0.0}, "30% of the answers are right, but not in the required format"),
        ({"completions/clipped_ratio": 0.8, "reward/format": 0.1}, "80% of the rollouts are cut"),
        ({"reward/format": 0.2}, "only 20% of the rollouts have the required format"),
        ({"reward/format": 0.9}, "the questions are too hard"),
    ],
)
def test_the_likely_cause_of_no_reward_is_named(seen: dict[str, float], said: str) -> None:
    assert said in why_no_reward(HEALTHY | {"reward/answer": 0.0} | seen)[0]


@pytest.mark.parametrize(("skip_above", "taken"), [(None, True), (6.0, True), (4.0, False)])
def test_a_gradient_above_the_bound_is_dropped(skip_above: float | None, taken: bool) -> None:
    """The norm of (3, 4) is 5."""
    model = torch.nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norm, stepped = clip_and_step(model, optimizer, 0.1, 1.0, skip_above)
    assert norm == pytest.approx(5.0) and stepped is taken
    assert torch.equal(before, model.weight.detach()) is not taken
    assert model.weight.grad is None
