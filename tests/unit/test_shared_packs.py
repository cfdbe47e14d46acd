"""A prompt that is run once for several responses must be invisible in loss, log-probabilities and gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Qwen2Config

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.stages.rl.shared_packs import can_share, make_shared_pack, shared_rank_packs
from curiosft_cli.train.attention import register_packed_attention
from curiosft_cli.train.batches import Pack, make_pack
from curiosft_cli.train.encode import Row
from curiosft_cli.train.student import Student

ROWS = [
    Row((5, 6, 7), (8, 9)),
    Row((5, 6, 7), (11, 12, 13, 14, 15)),
    Row((3, 4, 5, 6), (7,)),
    Row((5, 6, 7), (22,)),
    Row((3, 4, 5, 6), (30, 31, 32, 33)),
]


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.5, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation=register_packed_attention())
    return Student(model, chunk=4, compute_dtype=torch.float32)


def run(student: Student, packs: Sequence[Pack]) -> tuple[float, dict[int, list[float]], list[torch.Tensor]]:
    """Summed loss, log-probabilities by row, gradients."""
    student.zero_grad()
    total, logps = 0.0, {}
    for pack in packs:
        loss, seen = student(pack, SFT_OBJECTIVES["dft"].bind(), {}, torch.ones(len(pack.labels)))
        loss.backward()
        total += float(loss.detach())
        for place, member in enumerate(pack.members):
            logps[member] = seen.logp[pack.sequence == place].tolist()
    return total, logps, [p.grad.clone() for p in student.parameters() if p.grad is not None]


def test_shared_equals_one_by_one(student: Student) -> None:
    alone = run(student, [make_pack(ROWS, [index], "cpu") for index in range(len(ROWS))])
    shared = run(student, [make_shared_pack(ROWS, [[0, 1, 3], [2, 4]], "cpu")])
    assert shared[0] == pytest.approx(alone[0], rel=1e-5)
    for index in range(len(ROWS)):
        assert shared[1][index] == pytest.approx(alone[1][index], abs=2e-5)
    for one, other in zip(alone[2], shared[2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_no_response_reads_another(student: Student) -> None:
    """Another neighbour changes nothing for a row that shares the prompt with it."""
    other = [ROWS[0], Row((5, 6, 7), (40, 41, 42))]
    first = run(student, [make_shared_pack(ROWS, [[0, 1]], "cpu")])[1][0]
    assert run(student, [make_shared_pack(other, [[1, 0]], "cpu")])[1][0] == pytest.approx(first, abs=2e-5)


def test_the_prompt_is_there_once() -> None:
    pack = make_shared_pack(ROWS, [[0, 1, 3]], "cpu")
    assert pack.input_ids.tolist() == [[5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 22]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 3]]
    assert pack.predictors.tolist() == [2, 3, 2, 5, 6, 7, 8, 2]
    assert pack.labels.tolist() == [8, 9, 11, 12, 13, 14, 15, 22]
    assert pack.lengths == ((3, 2, 5, 1),)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=12),
    st.integers(1, 3),
    st.integers(4, 24),
)
def test_every_row_is_in_one_counted_pack_of_legal_size(sizes: list[tuple[int, int]], ranks: int, most: int) -> None:
    rows = [Row((prompt,) * prompt, (9,) * response) for prompt, response in sizes]
    packs = [
        pack for rank in range(ranks) for pack in shared_rank_packs(rows, most, rank=rank, ranks=ranks, device="cpu")
    ]
    counted = [pack for pack in packs if pack.counted]
    assert sorted(member for pack in counted for member in pack.members) == list(range(len(rows)))
    assert all(pack.input_ids.shape[1] <= most or len(pack.members) == 1 for pack in counted)
    assert len({len(shared_rank_packs(rows, most, rank=rank, ranks=ranks, device="cpu")) for rank in range(ranks)}) == 1


def test_flash_attention_takes_rows_one_by_one() -> None:
    assert can_share("packed_sdpa") and not can_share("flash_attention_2") and not can_share("sdpa")
