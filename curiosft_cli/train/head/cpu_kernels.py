"""Faster passes over the vocabulary for a CPU, with the results of `kernels.py`; `kernels_for` chooses.

Each saves more than a tenth of a training step with a large vocabulary. What saves less does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curiosft_cli.objectives.tokens import top_k_entropy
from curiosft_cli.train.head.kernels import Kernels, softmax_of


def kernels_for(device: torch.device | str) -> Kernels:
    """The passes that suit `device`."""
    return CpuKernels() if torch.device(device).type == "cpu" else Kernels()


@dataclass(frozen=True)
class CpuKernels(Kernels):
    """For a CPU.

    Attributes:
        tile_logits: small enough for a tile to stay in the processor's cache from one pass to the next.
    """

    tile_logits: int = 2**19

    def largest(self, logits: Tensor, topk: int) -> Tensor:
        if topk >= logits.shape[1]:
            return logits.float()
        found = [_largest_bits(logits[tile], topk) for tile in self.tiles(logits)]
        return torch.cat(found).float()

    def guard_entropy(self, logits: Tensor, top: Tensor, guard: float, temperature: float) -> Tensor:
        # The top-k entropy is never above the full one. Where it is above the guard already, it will do.
        values = top_k_entropy(top, top.shape[1])
        low = (values <= guard).nonzero().squeeze(-1)
        for rows in low.split(max(1, self.tile_logits // logits.shape[1])):
            z, probabilities, log_total = softmax_of(logits[rows], temperature)
            values[rows] = log_total - z.mul_(probabilities).sum(-1)
        return values

    def nucleus_mass(self, probabilities: Tensor, top_p: float, enough: int = 512, factor: int = 8) -> Tensor:
        """Sort only the `enough` likeliest tokens, and `factor` times as many where these do not reach `top_p`."""
        top = self.largest(probabilities, enough)
        mass = super().nucleus_mass(top, top_p)
        if enough < probabilities.shape[1]:
            short = (top.sum(-1) < top_p).nonzero().squeeze(-1)
            if len(short):
                mass[short] = self.nucleus_mass(probabilities[short], top_p, factor * enough)
        return mass


def _largest_bits(logits: Tensor, topk: int) -> Tensor:
    """The `topk` largest of each row [r, V], by numpy's partition; of integers, because numpy has no bfloat16."""
    bits = logits.view({2: torch.int16, 4: torch.int32}[logits.element_size()]).numpy()
    ordered = _ordered(bits)
    ordered.partition(ordered.shape[1] - topk, axis=-1)
    return torch.from_numpy(_ordered(ordered[:, -topk:])).view(logits.dtype)


def _ordered(bits: Any) -> Any:
    """Integers with the order of the floating-point numbers that have these bits; applied twice, the bits again."""
    sign = 8 * bits.itemsize - 1
    return bits ^ (bits >> sign & (1 << sign) - 1)
