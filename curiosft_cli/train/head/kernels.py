"""Passes over the vocabulary in plain torch: what a GPU runs. `cpu_kernels.py` replaces some of them on a CPU.

No shape here depends on a value, so the passes also run on fake tensors.

Axes: c positions of a chunk, r positions of a tile, V vocabulary, K largest logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from curiosft_cli.objectives.tokens import entropy, top_k_logits


@dataclass(frozen=True)
class Kernels:
    """Plain torch.

    Attributes:
        tile_logits: logits of one tile. Only a tile is in float32: large enough to keep a GPU busy, and small enough
            for the dozen temporaries of an autograd graph.
    """

    tile_logits: int = 2**24

    def tiles(self, logits: Tensor) -> Iterator[slice]:
        """The rows of `logits` [c, V] in tiles of `tile_logits` or less, at least one row; one empty tile if c is 0."""
        rows = max(1, self.tile_logits // logits.shape[1])
        for start in range(0, max(1, len(logits)), rows):
            yield slice(start, min(start + rows, len(logits)))

    def largest(self, logits: Tensor, topk: int) -> Tensor:
        """The `topk` largest logits of each row [c, K] of [c, V], in any order, in float32."""
        return top_k_logits(logits, topk).float()

    def guard_entropy(self, logits: Tensor, top: Tensor, guard: float, temperature: float) -> Tensor:
        """Entropies [c] in nats of [c, V] over the full vocabulary, for the low-entropy guard of the teacher.

        Args:
            logits: [c, V] in any float dtype.
            top: [c, K] float32, the largest of them at the temperature.
            guard: nats. An entropy above the guard need not be exact: any number above it will do.
            temperature: the logits are divided by it.
        """
        return torch.cat([entropy(logits[tile], temperature) for tile in self.tiles(logits)])

    def nucleus_mass(self, probabilities: Tensor, top_p: float) -> Tensor:
        """Probability [r] of the smallest set of most likely tokens that reaches `top_p`, of [r, V]."""
        ordered = probabilities.sort(-1, descending=True).values
        return (ordered * (ordered.cumsum(-1) - ordered < top_p)).sum(-1)


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """A float32 copy of the logits, divided by the temperature."""
    upcast = logits.to(torch.float32, copy=True)
    return upcast if temperature == 1.0 else upcast.div_(temperature)


def softmax_of(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax of a tile [r, V], in float32.

    Returns:
        z [r, V], the logits at the temperature less the largest of their row; softmax(z) [r, V]; ln sum exp(z) [r].
    """
    z = at_temperature(logits, temperature)
    z -= z.amax(-1, keepdim=True)
    probabilities = z.softmax(-1)
    # From the probability of the largest, whose z is 0: a logsumexp would be one more pass.
    return z, probabilities, -probabilities.amax(-1).log()
