"""Reductions: how many times a token's loss counts, as one weight per token with the division already done.

A weight is built from totals of the whole optimizer step (all ranks, all accumulation steps), so the sum over
every micro-batch is exact however the batch is split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Totals:
    """Counts over one optimizer step, all ranks and accumulation steps together.

    Attributes:
        tokens: counted tokens (N).
        sequences: sequences with at least one counted token (R).
        micro_batches: micro-batches with at least one counted token.
        max_length: the configured longest response in tokens (L).
        masks: tokens whose `extra[name]` is true, for each such divisor among the objective's terms.
    """

    tokens: int
    sequences: int
    micro_batches: int = 1
    max_length: int = 1
    masks: Mapping[str, int] = field(default_factory=dict)


def token_mean(sequence: Tensor, totals: Totals) -> Tensor:
    """1 / N for each token of `sequence` [N] (the sequence index of every token of this micro-batch)."""
    return _constant(sequence, totals.tokens)


def seq_mean_token_mean(sequence: Tensor, totals: Totals) -> Tensor:
    """1 / (R n) with n the tokens of the token's own sequence, which lies whole in this micro-batch."""
    lengths = sequence.bincount() if sequence.numel() else sequence
    return 1.0 / (totals.sequences * lengths[sequence].float())


def constant(sequence: Tensor, totals: Totals) -> Tensor:
    """1 / (R L) for each token, whatever the lengths are."""
    return _constant(sequence, totals.sequences * totals.max_length)


def micro_token_mean(sequence: Tensor, totals: Totals) -> Tensor:
    """1 / (M n) with n the tokens of this micro-batch and M the micro-batches (the authors' code, D7)."""
    return _constant(sequence, totals.micro_batches * sequence.numel())


def _constant(sequence: Tensor, divisor: int) -> Tensor:
    return sequence.float().fill_(1.0 / max(divisor, 1))


REDUCTIONS: dict[str, Callable[[Tensor, Totals], Tensor]] = {
    "token_mean": token_mean,
    "seq_mean_token_mean": seq_mean_token_mean,
    "constant": constant,
    "micro_token_mean": micro_token_mean,
}


def term_weights(divisor: str, reduction: str, sequence: Tensor, totals: Totals) -> Tensor:
    """One weight per token of `sequence` [N] for a term of the loss with this divisor (`BoundObjective.terms`)."""
    if divisor == "reduction":
        return REDUCTIONS[reduction](sequence, totals)
    if divisor == "tokens":
        return token_mean(sequence, totals)
    return _constant(sequence, totals.masks[divisor])
