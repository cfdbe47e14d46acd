"""Which rows a step takes and how they are packed must not depend on how many ranks share the work."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from curiosft_cli.train.batches import make_pack, partition, rank_packs, step_rows, steps_per_epoch
from curiosft_cli.train.encode import Row


@given(st.integers(1, 60), st.integers(1, 16), st.integers(0, 3))
def test_an_epoch_takes_every_row_once(rows: int, batch_size: int, seed: int) -> None:
    per_epoch = steps_per_epoch(rows, batch_size)
    for epoch in (0, 1):
        taken = [
            row for step in range(per_epoch) for row in step_rows(rows, batch_size, seed, epoch * per_epoch + step)
        ]
        assert sorted(taken) == list(range(rows))


@given(st.integers(1, 60), st.integers(1, 16), st.integers(0, 3))
def test_an_epoch_without_its_last_partial_batch_has_whole_batches(rows: int, batch_size: int, seed: int) -> None:
    per_epoch = steps_per_epoch(rows, batch_size, drop_last=True)
    assert per_epoch == max(1, rows // batch_size)
    for epoch in (0, 1):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        taken = [row for step in steps for row in step_rows(rows, batch_size, seed, step, drop_last=True)]
        assert len(set(taken)) == len(taken) == min(rows, per_epoch * batch_size)


def test_epochs_and_seeds_shuffle_differently() -> None:
    orders = {tuple(step_rows(50, 50, seed, step)) for seed in (0, 1) for step in (0, 1)}
    assert len(orders) == 4


@given(st.lists(st.integers(1, 90), min_size=1, max_size=40), st.integers(40, 200), st.integers(1, 4))
def test_a_partition_is_complete_bounded_and_even(lengths: list[int], max_tokens: int, ranks: int) -> None:
    packs = partition(lengths, max_tokens, ranks)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert len(packs) % ranks == 0
    assert all(sum(lengths[row] for row in pack) <= max_tokens or len(pack) == 1 for pack in packs)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 5))
def test_the_ranks_together_have_every_supervised_token_once(lengths: list[int], ranks: int) -> None:
    rows = [Row((1, 2), tuple(range(10, 10 + length))) for length in lengths]
    shares = [rank_packs(rows, 64, rank=rank, ranks=ranks, device="cpu") for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    counted = [pack for share in shares for pack in share if pack.counted]
    assert sum(len(pack.labels) for pack in counted) == sum(lengths)


def test_a_pack_by_hand() -> None:
    """Rows (1 2 | 3 4) and (5 | 6): positions restart; the token before each response token predicts it."""
    pack = make_pack([Row((1, 2), (3, 4)), Row((5,), (6,))], [0, 1], "cpu")
    assert pack.input_ids.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert pack.predictors.tolist() == [1, 2, 4]
    assert pack.labels.tolist() == [3, 4, 6]
    assert pack.sequence.tolist() == [0, 0, 1]


def test_an_empty_response_supervises_nothing() -> None:
    pack = make_pack([Row((1, 2), ())], [0], "cpu")
    assert pack.labels.shape == (0,)
    assert pack.labels.dtype == torch.int64
