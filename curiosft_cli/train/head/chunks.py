"""The product of hidden states with the head in chunks, its buffers and gradients, and the passes over a few rows.

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


LOG2_E = math.log2(math.e)

POWERS_OF_2 = ("cpu",)
"""Where passes with powers of 2 are faster than torch's one kernel for softmax, which spends its time on those of e."""


def powers_(logits: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [r, V] less the largest of their row, in place, and in `out` a multiple of their softmax.

    Returns:
        the multiple [r], which is cheaper to divide out of a few numbers than out of all, and the log of the sum of
        e to the power of the logits that are left [r].
    """
    logits.sub_(logits.amax(-1, keepdim=True))
    if logits.device.type in POWERS_OF_2:
        total = torch.mul(logits, LOG2_E, out=out).exp2_().sum(-1)
        return total, total.log()
    torch.softmax(logits, -1, out=out)
    log_total = out.amax(-1).log_().neg_()
    return torch.ones_like(log_total), log_total


def entropy_(logits: Tensor, powers: Tensor, multiple: Tensor, log_total: Tensor) -> Tensor:
    """Entropy [r] in nats from what `powers_` gave; overwrites `logits`."""
    return log_total - logits.mul_(powers).sum(-1) / multiple


def of_labels(values: Tensor, labels: Tensor) -> Tensor:
    """The value [r] at each row's label, of values [r, V]."""
    return values.gather(1, labels[:, None]).squeeze(1)


def tempered_logp_(logits: Tensor, labels: Tensor, highest: Tensor, tau: Tensor) -> Tensor:
    """log pi(y; tau) [r] where `highest` [r] is the largest logit; overwrites `logits`."""
    if logits.device.type not in POWERS_OF_2:
        return of_labels(torch.log_softmax(logits.div_(tau[:, None]), -1, out=logits), labels)
    logits.sub_(highest[:, None])
    chosen = of_labels(logits, labels) / tau
    return chosen - logits.mul_((LOG2_E / tau)[:, None]).exp2_().sum(-1).log_()


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


class Attached(torch.autograd.Function):
    """Hands the gradients that the walk made to autograd, multiplied by what comes from above; once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        loss: Tensor,
        by_hidden: Tensor | None,
        by_weight: Tensor | None,
    ) -> Tensor:
        ctx.gradients = [by_hidden, by_weight]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place and only once: another [V, H] tensor would cost as much memory as the gradient itself.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the head's gradients are used up: a second backward needs a second forward")
        scaled = [None if grad is None else grad.mul_(upstream[0]) for grad in gradients]
        return scaled[0], scaled[1], None, None, None


def largest(values: Tensor, size: int, stride: int = 64, run: int = 8, deviations: float = 4.0) -> Tensor:
    """The `size` largest of each row [r, K], unordered, in float32.

    On CPU one value in `stride` of a row, in runs of neighbours, tells where about its largest begin, so that the
    selection itself sees few. The rank taken in this sample is `deviations` standard deviations above the expected
    one; a row whose sample misleads all the same is selected from whole.
    """
    width = values.shape[1]
    if size >= width:
        return values.float()
    if values.device.type != "cpu":
        return values.topk(size, dim=-1, sorted=False).values.float()
    places = (torch.arange(0, width, run * stride)[:, None] + torch.arange(run)).flatten()
    places = places[places < width]
    expected = size * len(places) / width
    rank = min(math.ceil(expected + deviations * math.sqrt(expected)), len(places))
    # As integers: numpy has no bfloat16, whose half as many bytes are faster to compare.
    signed, unsigned = _INTEGERS[values.element_size()]
    bits = values.view(signed).numpy()
    sample = _ordered(bits.take(places.numpy(), axis=1))
    sample.partition(len(places) - rank, axis=-1)
    starts = sample[:, -rank].copy()
    top = values.new_empty(len(values), size)
    for row, start, begin, out in zip(bits, starts, _ordered(starts), top.view(signed).numpy(), strict=True):
        # Unsigned, the negative numbers come after all others, the largest first.
        reach = row >= start if start >= 0 else row.view(unsigned) <= begin.view(unsigned)
        found = _ordered(row[reach.nonzero()[0]])
        if len(found) < size:
            found = _ordered(row)
        found.partition(len(found) - size)
        out[:] = _ordered(found[-size:])
    return top.float()


_INTEGERS = {2: (torch.int16, "uint16"), 4: (torch.int32, "uint32")}
"""Integers as wide as a floating-point number of so many bytes."""


def _ordered(bits: Any) -> Any:
    """Integers ordered like the floating-point numbers whose bits they are given as; given those, the bits again."""
    sign = 8 * bits.itemsize - 1
    return bits ^ (bits >> sign & (1 << sign) - 1)


def cat_rows(parts: list[Tensor], device: torch.device) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, device=device)
