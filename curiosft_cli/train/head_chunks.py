"""The product of hidden states with the head in chunks, its buffers, and the passes over a few rows of a chunk.

Axes: N supervised positions, c positions of a chunk, r positions of a tile, H hidden size, V vocabulary. A trailing
underscore marks what overwrites its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

CPU_TILE_LOGITS = 2**20
"""Logits in one tile on CPU: few enough for the passes over them to find them, and their softmax, in its cache."""

TILE_LOGITS = 2**24
"""Logits in one tile elsewhere: enough to occupy a GPU, while the dozen temporaries of an autograd graph stay small."""


@dataclass
class HeadProduct:
    """The product of N hidden states with the head, chunk by chunk, and a chunk's float32 logits, tile by tile."""

    hidden: Tensor
    weight: Tensor
    chunk: int
    dtype: torch.dtype
    temperature: float = 1.0
    slot: str = "logits"

    def __post_init__(self) -> None:
        self.hidden = self.hidden.detach().to(self.dtype)
        self.weight = self.weight.detach().to(self.dtype)

    def chunks(self) -> Iterator[slice]:
        for start in range(0, len(self.hidden), self.chunk):
            yield slice(start, min(start + self.chunk, len(self.hidden)))

    def logits(self, rows: slice) -> Tensor:
        """[c, V] in the dtype of the products, temperature not applied, in a buffer that the next chunk overwrites."""
        out = self._rows(self.slot, rows.stop - rows.start, self.chunk, self.dtype)
        return torch.mm(self.hidden[rows], self.weight.t(), out=out)

    def tiles(self, logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Where a tile is in `logits`, and its own float32 logits [r, V] at the temperature, to work in."""
        for start in range(0, len(logits), self._tile):
            own = slice(start, min(start + self._tile, len(logits)))
            tile = self._rows(f"{self.slot} tile", own.stop - start, self._tile).copy_(logits[own])
            yield own, tile if self.temperature == 1.0 else tile.div_(self.temperature)

    def beside(self, tile: Tensor) -> Tensor:
        """Room for another [r, V] float32 while `tile` is in use."""
        return self._rows("probabilities", len(tile), self._tile)

    @property
    def _tile(self) -> int:
        logits = CPU_TILE_LOGITS if self.weight.device.type == "cpu" else TILE_LOGITS
        return min(self.chunk, max(1, logits // len(self.weight)))

    def _rows(self, slot: str, rows: int, most: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return _buffer(slot, most, len(self.weight), dtype, self.weight.device)[:rows]


class WeightGradient:
    """Accumulates [V, H] in float32, whatever the dtype of the products.

    Args:
        weight: the head's.
        block: numbers of a product in low precision added at a time, few enough for their float32 copy to stay in the
            cache.
    """

    def __init__(self, weight: Tensor, block: int = 2**19) -> None:
        self._shape, self._device = weight.shape, weight.device
        self._block = max(1, block // weight.shape[1])
        self._sum: Tensor | None = None
        self._product: Tensor | None = None

    def add(self, by_logits: Tensor, states: Tensor) -> None:
        if by_logits.dtype == torch.float32:
            if self._sum is None:
                self._sum = torch.mm(by_logits.t(), states)
            else:
                self._sum.addmm_(by_logits.t(), states)
            return
        if self._product is None:
            self._product = torch.empty(self._shape, dtype=by_logits.dtype, device=self._device)
        torch.mm(by_logits.t(), states, out=self._product)
        if self._sum is None:
            self._sum = self._product.float()
            return
        for rows, product in zip(self._sum.split(self._block), self._product.split(self._block), strict=True):
            rows += product

    def total(self) -> Tensor:
        return torch.zeros(self._shape, device=self._device) if self._sum is None else self._sum


@contextmanager
def detached(device: torch.device) -> Generator[None]:
    """No gradient and no autocast; and outside inference mode, whose tensors a later autograd graph may not save."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        yield


@lru_cache(maxsize=8)
def _buffer(slot: str, rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept between calls: on CPU, fresh pages of tens of MiB cost more than the pass over them. A few at most,
    # because a call has one vocabulary and one chunk size; `slot` tells apart those alive at once.
    return torch.empty(rows, vocabulary, dtype=dtype, device=device)


def release_buffers() -> None:
    """Give the chunk buffers' memory back (before an engine takes the accelerator); the next call makes new ones."""
    _buffer.cache_clear()


def softmax_and_logp(logits: Tensor, labels: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log pi(y), the largest logit, and the log of the largest probability, all [r]; the probabilities go to `out`."""
    chosen, highest = logits.gather(1, labels[:, None]).squeeze(1), logits.amax(-1)
    torch.softmax(logits, -1, out=out)
    # One fused kernel; log p_v = z_v - highest + peak for every v, and no number as large as a logit is rounded.
    peak = out.amax(-1).log_()
    return chosen - highest + peak, highest, peak


def entropy_(logits: Tensor, probabilities: Tensor, highest: Tensor, peak: Tensor) -> Tensor:
    """Entropy [r] in nats from what `softmax_and_logp` gave; overwrites `logits`."""
    return -peak - logits.sub_(highest[:, None]).mul_(probabilities).sum(-1)


class LabelLogp(torch.autograd.Function):
    """log pi(y) [c] as a function of the logits [c, V], from probabilities that are there already."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, logp: Tensor, probabilities: Tensor, labels: Tensor) -> Tensor:
        ctx.place = probabilities, labels
        return logp.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, labels = ctx.place
        by_logits = probabilities * -upstream[0][:, None]
        return by_logits.scatter_add_(1, labels[:, None], upstream[0][:, None]), None, None, None


def largest(values: Tensor, size: int, stride: int = 64, deviations: float = 4.0) -> Tensor:
    """The `size` largest of each row [r, K], unordered.

    On CPU every `stride`-th value of a row tells where about its largest begin, so that the selection itself sees few.
    The rank taken in this sample is `deviations` standard deviations above the expected one; a row whose sample
    misleads all the same is selected from whole.
    """
    if size >= values.shape[1]:
        return values
    if values.device.type != "cpu":
        return values.topk(size, dim=-1, sorted=False).values
    rows = values.numpy()
    sample = rows[:, ::stride].copy()
    rank = min(math.ceil(size / stride + deviations * math.sqrt(size / stride)), sample.shape[1])
    sample.partition(sample.shape[1] - rank, axis=-1)
    top = values.new_empty(len(values), size)
    for row, start, out in zip(rows, sample[:, -rank], top.numpy(), strict=True):
        found = row[row >= start]
        if len(found) < size:
            found = row.copy()
        found.partition(len(found) - size)
        out[:] = found[-size:]
    return top


def cat_rows(parts: list[Tensor], device: torch.device) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, device=device)
