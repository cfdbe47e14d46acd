"""Reductions: how many times a token's loss counts, as one weight per token with the division already done.

A weight is built from totals of the whole optimizer step (all ranks, all accumulation steps), so the sum over
every micro-batch is exact however the batch is split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from curiosft_cli.objectives.tokens import Divisor


@dataclass(frozen=True)
class Totals:
    """Counts over one optimizer step, all ranks and accumulation steps together.

    Attributes:
        tokens: counted tokens (N).
        sequences: sequences with at least one counted token (R).
        micro_batches: counted tokens of each micro-batch; the first `micro_rows` sequences make the first one.
        micro_rows: sequences of a micro-batch.
        max_length: the configured longest response in tokens (L).
        masks: tokens whose `extra[name]` is true, for each mask that the objective reads.
        mask_sequences: sequences with at least one such token.
        all_tokens: tokens of prompts and responses, counted or not.
    """

    tokens: int
    sequences: int
    micro_batches: Sequence[int] = ()
    micro_rows: int = 1
    max_length: int = 1
    masks: Mapping[str, int] = field(default_factory=dict)
    mask_sequences: Mapping[str, int] = field(default_factory=dict)
    all_tokens: int = 0


def token_mean(sequence: Tensor, totals: Totals) -> Tensor:
    """1 / N for each token of `sequence` [N] (which of the step's sequences the token belongs to)."""
    return _constant(sequence, totals.tokens)


def seq_mean_token_mean(sequence: Tensor, totals: Totals) -> Tensor:
    """1 / (R n) with n the tokens of the token's own sequence, all of which are there."""
    lengths = sequence.bincount() if sequence.numel() else sequence
    return 1.0 / (totals.sequences * lengths[sequence].float())


def constant(sequence: Tensor, totals: Totals) -> Tensor:
    """1 / (R L) for each token, whatever the lengths are."""
    return _constant(sequence, totals.sequences * totals.max_length)


def micro_token_mean(sequence: Tensor, totals: Totals) -> Tensor:
    """1 / (M n) with n the tokens of the token's micro-batch and M the micro-batches (the authors' code, D7)."""
    import torch

    counts = torch.tensor(totals.micro_batches, dtype=torch.float32, device=sequence.device)
    return 1.0 / ((counts > 0).sum() * counts[sequence // totals.micro_rows])


def _constant(sequence: Tensor, divisor: int) -> Tensor:
    return sequence.float().fill_(1.0 / max(divisor, 1))


REDUCTIONS: dict[str, Callable[[Tensor, Totals], Tensor]] = {
    "token_mean": token_mean,
    "seq_mean_token_mean": seq_mean_token_mean,
    "constant": constant,
    "micro_token_mean": micro_token_mean,
}


def term_weights(divisor: Divisor, reduction: str, sequence: Tensor, totals: Totals) -> Tensor:
    """One weight per token of `sequence` [N] for a term of the loss with this divisor (`BoundObjective.terms`)."""
    if not isinstance(divisor, str):
        return sequence.float().fill_(divisor(totals))
    if divisor == "reduction":
        return REDUCTIONS[reduction](sequence, totals)
    if divisor == "tokens":
        return token_mean(sequence, totals)
    return _constant(sequence, totals.masks[divisor])
