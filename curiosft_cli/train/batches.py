"""Which rows an optimizer step takes, and how they are packed: pure functions of the seed and the step number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from curiosft_cli.train.encode import Row


@dataclass(frozen=True)
class Pack:
    """Several rows in one sequence of T tokens, without padding and without reading each other.

    Attributes:
        input_ids: [1, T] int64.
        position_ids: [1, T] int64, restarting at 0 with every row: the attention mask follows from it.
        predictors: [N] int64, the positions whose hidden states predict the supervised tokens.
        labels: [N] int64, those tokens.
        sequence: [N] int64, the row of each supervised token, counted within the pack.
        members: the packed rows, as indices into what was packed; the order of the supervised tokens.
        lengths: tokens of each packed row; (prompt, response, response, ...) for rows that share their prompt.
        counted: false for a pack that only keeps the ranks in step and must weigh nothing.
    """

    input_ids: Tensor
    position_ids: Tensor
    predictors: Tensor
    labels: Tensor
    sequence: Tensor
    members: tuple[int, ...]
    lengths: tuple[int | tuple[int, ...], ...]
    counted: bool = True


def steps_per_epoch(rows: int, batch_size: int, drop_last: bool = False) -> int:
    """Optimizer steps of one pass; the last one takes what is left.

    Args:
        drop_last: leave out what does not fill a batch, unless it is all there is.
    """
    return max(1, rows // batch_size) if drop_last else ceil(rows / batch_size)


def step_rows(rows: int, batch_size: int, seed: int, step: int, drop_last: bool = False) -> list[int]:
    """Indices of the rows of the 0-based optimizer step `step`. The position in the data is this one number."""
    per_epoch = steps_per_epoch(rows, batch_size, drop_last)
    epoch, window = divmod(step, per_epoch)
    start = window * batch_size
    return [int(row) for row in _order(rows, seed, epoch)[start : start + batch_size]]


def partition(lengths: Sequence[int], max_tokens: int, ranks: int) -> list[list[int]]:
    """Split rows into packs of at most `max_tokens`, as many as a multiple of `ranks`, nearly equal in tokens.

    Longest row first, always into the emptiest pack. A row longer than `max_tokens` is a pack of its own. With fewer
    rows than ranks some packs stay empty.
    """
    longest_first = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    count = ceil(max(1, ceil(sum(lengths) / max_tokens)) / ranks) * ranks
    while True:
        packs: list[list[int]] = [[] for _ in range(count)]
        loads = [0] * count
        for row in longest_first:
            emptiest = min(range(count), key=loads.__getitem__)
            packs[emptiest].append(row)
            loads[emptiest] += lengths[row]
        if all(load <= max_tokens or len(pack) == 1 for pack, load in zip(packs, loads, strict=True)):
            return packs
        count += ranks


def rank_packs(
    rows: Sequence[Row], max_tokens: int, *, rank: int, ranks: int, device: torch.device | str
) -> list[Pack]:
    """This rank's packs of one step's rows. Every rank gets the same number, so that collectives stay in step."""
    mine = partition([len(row) for row in rows], max_tokens, ranks)[rank::ranks]
    # A rank without rows runs the first one and weighs it with nothing.
    return [make_pack(rows, members or [0], device, counted=bool(members)) for members in mine]


def make_pack(rows: Sequence[Row], members: Sequence[int], device: torch.device | str, *, counted: bool = True) -> Pack:
    """Lay the rows `members` end to end."""
    import torch

    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    sequence: list[int] = []
    for index, member in enumerate(members):
        row = rows[member]
        first_response = len(ids) + len(row.prompt_ids)
        ids += row.prompt_ids + row.response_ids
        positions += range(len(row))
        predictors += range(first_response - 1, len(ids) - 1)
        sequence += [index] * len(row.response_ids)
    token_ids = torch.tensor(ids, device=device)
    where = torch.tensor(predictors, dtype=torch.int64, device=device)
    return Pack(
        input_ids=token_ids[None],
        position_ids=torch.tensor(positions, device=device)[None],
        predictors=where,
        labels=token_ids[where + 1],
        sequence=torch.tensor(sequence, dtype=torch.int64, device=device),
        members=tuple(members),
        lengths=tuple(len(rows[member]) for member in members),
        counted=counted,
    )


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> NDArray:
    import numpy

    return numpy.random.default_rng([seed, epoch]).permutation(rows)
