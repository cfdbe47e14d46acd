"""The passes over the vocabulary that a CPU computes in its own way; here in plain torch, as a GPU runs them.

Shapes depend on no values here, so that the passes run on fake tensors and compile. `cpu_kernels.py` has the others.

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
        tile_logits: logits that are in float32 at a time: enough to occupy a GPU, while the dozen temporaries of an
            autograd graph stay small.
    """

    tile_logits: int = 2**24

    def tiles(self, logits: Tensor) -> Iterator[slice]:
        """The rows of `logits` [c, V] in tiles of at most `tile_logits`, or of one row; one empty tile where c is 0."""
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
            guard: nats; what is above it may be any number above it.
            temperature: the logits are divided by it.
        """
        found = [entropy(logits[tile], temperature) for tile in self.tiles(logits)]
        return torch.cat(found)

    def nucleus_mass(self, probabilities: Tensor, top_p: float) -> Tensor:
        """Probability [r] of the smallest set of most likely tokens that reaches `top_p`, of [r, V]."""
        ordered = probabilities.sort(-1, descending=True).values
        return (ordered * (ordered.cumsum(-1) - ordered < top_p)).sum(-1)
