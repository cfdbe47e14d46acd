"""The passes over the vocabulary as a CPU computes them faster; the same numbers as `kernels.py`.

Each of them is worth more than a tenth of a training step with a vocabulary of 152k. `kernels_for` is the one place
that chooses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curiosft_cli.objectives.tokens import entropy, top_k_entropy
from curiosft_cli.train.head.kernels import Kernels


def kernels_for(device: torch.device | str) -> Kernels:
    """What computes the head's passes on `device`."""
    return CpuKernels() if torch.device(device).type == "cpu" else Kernels()


@dataclass(frozen=True)
class CpuKernels(Kernels):
    """For a CPU.

    Attributes:
        tile_logits: few enough for the next pass over a tile to find it in the cache.
    """

    tile_logits: int = 2**20

    def largest(self, logits: Tensor, topk: int) -> Tensor:
        if topk >= logits.shape[1]:
            return logits.float()
        found = [_largest_bits(logits[tile], topk) for tile in self.tiles(logits)]
        return torch.cat(found).float()

    def guard_entropy(self, logits: Tensor, top: Tensor, guard: float, temperature: float) -> Tensor:
        # Without its least likely tokens a distribution has no more entropy: a token whose top-k entropy is above the
        # guard needs no pass over the vocabulary.
        values = top_k_entropy(top, top.shape[1])
        low = (values <= guard).nonzero().squeeze(-1)
        for rows in low.split(max(1, self.tile_logits // logits.shape[1])):
            values[rows] = entropy(logits[rows], temperature)
        return values

    def nucleus_mass(self, probabilities: Tensor, top_p: float, enough: int = 512, factor: int = 8) -> Tensor:
        """Sorts the `enough` likeliest tokens; `factor` times as many where these do not reach `top_p`."""
        top = self.largest(probabilities, enough)
        mass = super().nucleus_mass(top, top_p)
        if enough < probabilities.shape[1]:
            short = (top.sum(-1) < top_p).nonzero().squeeze(-1)
            if len(short):
                mass[short] = self.nucleus_mass(probabilities[short], top_p, factor * enough)
        return mass


def _largest_bits(logits: Tensor, topk: int) -> Tensor:
    """The `topk` largest of each row [r, V], by numpy's selection among integers: it knows no bfloat16."""
    bits = logits.view({2: torch.int16, 4: torch.int32}[logits.element_size()]).numpy()
    ordered = _ordered(bits)
    ordered.partition(ordered.shape[1] - topk, axis=-1)
    return torch.from_numpy(_ordered(ordered[:, -topk:])).view(logits.dtype)


def _ordered(bits: Any) -> Any:
    """Integers in the order of the floating-point numbers whose bits are given; of those integers, the bits again."""
    sign = 8 * bits.itemsize - 1
    return bits ^ (bits >> sign & (1 << sign) - 1)
