"""Learning rates by hand, and an update that a non-finite gradient cannot spoil."""

from __future__ import annotations

import pytest
import torch

from curiosft_cli.train.optim import clip_and_step, constant_lr, cosine_lr


def test_warm_up_then_cosine_by_hand() -> None:
    """Peak 1, 2 warm-up steps, 6 in all, floor 0.1: steps 2..5 are at progress 0, 1/4, 1/2, 3/4 of the cosine.

    0.1 + 0.9 * (1 + cos(pi x)) / 2 = 1, 0.1 + 0.9 * 0.853553 = 0.868198, 0.55, 0.1 + 0.9 * 0.146447 = 0.231802.
    """
    rates = [cosine_lr(step, peak=1.0, warmup_steps=2, total_steps=6, min_ratio=0.1) for step in range(6)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.868198, 0.55, 0.231802], abs=1e-6)
    assert cosine_lr(99, peak=1.0, warmup_steps=2, total_steps=6, min_ratio=0.1) == pytest.approx(0.1)


def test_constant_after_warm_up() -> None:
    assert [constant_lr(step, peak=2.0, warmup_steps=4) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert constant_lr(0, peak=2.0, warmup_steps=0) == 2.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, bad)
    norm, stepped = clip_and_step(layer, optimizer, 0.1, 1.0)
    assert not stepped
    assert norm != norm or norm == float("inf")
    assert all(torch.equal(old, new) for old, new in zip(before, layer.parameters(), strict=True))
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_the_norm_is_that_before_clipping() -> None:
    """Gradient (3, 4) has norm 5; clipped to 1 it is (0.6, 0.8), and SGD with rate 1 moves by that."""
    layer = torch.nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    norm, stepped = clip_and_step(layer, torch.optim.SGD(layer.parameters(), lr=9.0), 1.0, 1.0)
    assert (norm, stepped) == (pytest.approx(5.0), True)
    torch.testing.assert_close(before - layer.weight.detach(), torch.tensor([[0.6, 0.8]]))
