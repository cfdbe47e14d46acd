"""The nucleus on a CPU: the tokens that vLLM's own sort keeps, whatever the shape of the distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("vllm")

from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

from curiosft_cli.engine.vllm_engines.cpu_nucleus import TOP_P, CpuNucleus, keep_nucleus_


@given(st.integers(0, 10_000), st.floats(0.05, 0.999), st.floats(0.01, 12.0), st.sampled_from([5, 300, 3000]))
def test_it_keeps_what_a_whole_sort_keeps(seed: int, top_p: float, spread: float, vocabulary: int) -> None:
    """Flat rows need more than the first 8 tokens, sharp ones a single token; one row of the three is not cut."""
    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    bounds = torch.tensor([top_p, 1.0, 0.5])
    own, other = logits.clone(), logits.clone()
    keep_nucleus_(own, bounds, enough=8)
    assert torch.equal(own[1], logits[1])
    for row in (0, 2):
        kept = own[row] > -torch.inf
        assert torch.equal(own[row][kept], logits[row][kept])
        expected = apply_top_k_top_p_pytorch(other[row : row + 1], None, bounds[row : row + 1])[0] > -torch.inf
        # vLLM adds up from the small end in float32: a token at the very edge may fall to the other side.
        for token in (kept != expected).nonzero().flatten().tolist():
            before = logits[row].double().softmax(-1)[logits[row] > logits[row, token]].sum()
            assert float(before) == pytest.approx(float(bounds[row]), abs=1e-5)


def test_equal_logits_are_not_all_kept() -> None:
    """Four equal tokens and a nucleus of 0.4: two of them, as a sort would take."""
    logits = torch.zeros(1, 4)
    keep_nucleus_(logits, torch.tensor([0.4]))
    assert int((logits == 0.0).sum()) == 2


def test_it_follows_the_requests_through_the_batch() -> None:
    processor = CpuNucleus(None, torch.device("cpu"), False)  # ty: ignore[invalid-argument-type]
    narrow = SamplingParams(extra_args={TOP_P: 0.1})
    added = [(0, SamplingParams(), None, []), (1, narrow, None, []), (2, SamplingParams(), None, [])]
    processor.update_state(BatchUpdate(3, removed=[], added=added, moved=[]))
    kept = processor.apply(torch.eye(3).log1p()).isfinite().sum(-1).tolist()
    assert kept == [3, 1, 3]
    processor.update_state(None)
    processor.update_state(BatchUpdate(2, [0], [], [(1, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    assert processor.apply(torch.eye(2, 3).log1p()).isfinite().sum(-1).tolist() == [1, 3]
