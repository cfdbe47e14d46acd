"""A step's report: means over tokens not over packs, extremes, quantiles, and the split of Figure 2."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from curiosft_cli.train.stats import StepStats


def test_means_are_over_tokens() -> None:
    stats = StepStats()
    stats.add("x", torch.tensor([1.0]), extremes=True)
    stats.add("x", torch.tensor([4.0, 4.0, 7.0]), extremes=True)
    seen, _ = stats.reduce(Accelerator(cpu=True))
    assert seen == {"x": 4.0, "x_min": 1.0, "x_max": 7.0}


def test_a_report_starts_anew() -> None:
    stats = StepStats()
    stats.add("x", torch.tensor([1.0]))
    stats.add_seconds("part", 2.0)
    stats.add_seconds("part", 1.0)
    assert stats.reduce(Accelerator(cpu=True))[1] == {"part": 3.0}
    assert stats.reduce(Accelerator(cpu=True)) == ({}, {})


def test_entropy_is_split_at_the_top_fifth_of_the_whole_step() -> None:
    """Ten tokens in two packs: the two largest, 9 and 8, are the top 20 %; the rest averages 3.5."""
    stats = StepStats()
    stats.add_whole("entropy", torch.tensor([9.0, 0.0, 1.0, 2.0]))
    stats.add_whole("entropy", torch.tensor([3.0, 4.0, 5.0, 8.0, 6.0, 7.0]))
    seen, _ = stats.reduce(Accelerator(cpu=True))
    assert seen == {"entropy_top20_nats": 8.5, "entropy_bottom80_nats": 3.5}


def test_quantiles() -> None:
    stats = StepStats()
    stats.add_whole("tau", torch.arange(11.0))
    seen, _ = stats.reduce(Accelerator(cpu=True))
    assert seen == pytest.approx({"tau_q10": 1.0, "tau_q50": 5.0, "tau_q90": 9.0})
