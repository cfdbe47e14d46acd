"""Sampling by inversion: exact frequencies, the nucleus, greedy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curiosft_cli.engine.transformers_engine import draw

GRID = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000


def frequencies(logits: list[float], temperature: float, top_p: float) -> list[float]:
    """Share of an even grid of uniform numbers that draws each token."""
    rows = torch.tensor(logits).expand(len(GRID), -1)
    return (draw(rows, GRID, temperature, top_p)[0].bincount(minlength=len(logits)) / len(GRID)).tolist()


def test_frequencies_are_the_tempered_probabilities() -> None:
    """Logits ln 1, ln 4, ln 9 at temperature 2 weigh as the square roots 1, 2, 3."""
    logits = torch.tensor([1.0, 4.0, 9.0]).log().tolist()
    assert frequencies(logits, temperature=2.0, top_p=1.0) == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=1e-3)


def test_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    """Probabilities 0.5, 0.3, 0.2: 0.5 alone falls short of 0.7, with 0.3 it reaches it; renormalised 5/8, 3/8."""
    logits = torch.tensor([0.2, 0.5, 0.3]).log().tolist()
    assert frequencies(logits, temperature=1.0, top_p=0.7) == pytest.approx([0, 5 / 8, 3 / 8], abs=1e-3)
    assert frequencies(logits, temperature=1.0, top_p=0.4) == [0, 1, 0]


def test_the_log_probability_is_that_of_the_tempered_nucleus() -> None:
    """Weights 1, 4, 9 at temperature 2 are 1/6, 2/6, 3/6; a nucleus of 0.7 keeps the last two: 2/5 and 3/5."""
    tokens, logp = draw(torch.tensor([1.0, 4.0, 9.0]).log().expand(len(GRID), -1), GRID, 2.0, 0.7)
    assert logp.exp().tolist() == pytest.approx([{1: 2 / 5, 2: 3 / 5}[token] for token in tokens.tolist()])


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12),
    top_p=st.floats(0.01, 1.0),
    temperature=st.floats(0.05, 5.0),
    uniform=st.floats(0.0, 1.0, exclude_max=True),
)
def test_drawn_token_is_in_the_nucleus(logits: list[float], top_p: float, temperature: float, uniform: float) -> None:
    row = torch.tensor([logits])
    token = int(draw(row, torch.tensor([uniform], dtype=torch.float64), temperature, top_p)[0])
    probs = (row.double() / temperature).softmax(-1)[0]
    assert float(probs[probs > probs[token]].sum()) < top_p


@given(logits=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12, unique=True))
def test_temperature_zero_takes_the_most_likely_token(logits: list[float]) -> None:
    token = int(draw(torch.tensor([logits]), torch.tensor([0.99], dtype=torch.float64), 0.0, 0.5)[0])
    assert logits[token] == max(logits)
