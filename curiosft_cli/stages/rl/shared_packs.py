"""Packs in which several responses share one prompt: it is run once, and each response reads it and itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curiosft_cli.train.attention import is_packed
from curiosft_cli.train.batches import Pack, partition

if TYPE_CHECKING:
    import torch

    from curiosft_cli.train.encode import Row


def can_share(attention: str) -> bool:
    """Whether the trainer's attention can express it; FlashAttention and plain masks need each row by itself."""
    return is_packed(attention)


def shared_rank_packs(
    rows: Sequence[Row], max_tokens: int, *, rank: int, ranks: int, device: torch.device | str
) -> list[Pack]:
    """As `batches.rank_packs`, with each prompt once for as many of its responses as `max_tokens` holds."""
    families = _families(rows, max_tokens)
    sizes = [len(rows[family[0]].prompt_ids) + sum(len(rows[m].response_ids) for m in family) for family in families]
    mine = partition(sizes, max_tokens, ranks)[rank::ranks]
    # A rank without rows runs the first family and weighs it with nothing.
    return [
        make_shared_pack(rows, [families[index] for index in chosen or [0]], device, counted=bool(chosen))
        for chosen in mine
    ]


def make_shared_pack(
    rows: Sequence[Row], families: Sequence[Sequence[int]], device: torch.device | str, *, counted: bool = True
) -> Pack:
    """Lay families of rows with equal prompts end to end: prompt, response, response, ...

    The first token of every response is predicted by the prompt's last position.
    """
    import torch

    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    sequence: list[int] = []
    members: list[int] = []
    for family in families:
        prompt = rows[family[0]].prompt_ids
        ids += prompt
        positions += range(len(prompt))
        last_of_prompt = len(ids) - 1
        for member in family:
            response, start = rows[member].response_ids, len(ids)
            ids += response
            positions += range(len(prompt), len(prompt) + len(response))
            predictors += [last_of_prompt, *range(start, len(ids) - 1)] if response else []
            sequence += [len(members)] * len(response)
            members.append(member)
    labels = [token for member in members for token in rows[member].response_ids]
    return Pack(
        input_ids=torch.tensor(ids, device=device)[None],
        position_ids=torch.tensor(positions, device=device)[None],
        predictors=torch.tensor(predictors, dtype=torch.int64, device=device),
        labels=torch.tensor(labels, dtype=torch.int64, device=device),
        sequence=torch.tensor(sequence, dtype=torch.int64, device=device),
        members=tuple(members),
        lengths=tuple(
            (len(rows[family[0]].prompt_ids), *(len(rows[member].response_ids) for member in family))
            for family in families
        ),
        counted=counted,
    )


def _families(rows: Sequence[Row], max_tokens: int) -> list[list[int]]:
    """Rows with equal prompts, as few families as hold at most `max_tokens`; a longer row is one by itself."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        by_prompt.setdefault(row.prompt_ids, []).append(index)
    families: list[list[int]] = []
    for prompt, members in by_prompt.items():
        left = 0
        for member in members:
            size = len(rows[member].response_ids)
            if size > left:
                families.append([])
                left = max_tokens - len(prompt)
            families[-1].append(member)
            left -= size
    return families
