"""The product of hidden states with the head in chunks, its buffers, and the passes over a [c, V] chunk.

Axes: N supervised positions, c positions of a chunk, H hidden size, V vocabulary. A trailing underscore marks what
overwrites its argument.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class HeadProduct:
    """The product of N hidden states with the head, chunk by chunk."""

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

    def buffer(self, slot: str, rows: slice, dtype: torch.dtype = torch.float32) -> Tensor:
        whole = _buffer(slot, self.chunk, len(self.weight), dtype, self.weight.device)
        return whole[: rows.stop - rows.start]

    def logits(self, rows: slice) -> Tensor:
        """[c, V] float32, in a buffer that the next chunk overwrites."""
        out = self.buffer(self.slot, rows)
        if self.dtype == torch.float32:
            torch.mm(self.hidden[rows], self.weight.t(), out=out)
        else:
            low = self.buffer("low", rows, self.dtype)
            out.copy_(torch.mm(self.hidden[rows], self.weight.t(), out=low))
        return out if self.temperature == 1.0 else out.div_(self.temperature)


class WeightGradient:
    """Accumulates [V, H] in float32, whatever the dtype of the products.

    Args:
        weight: the head's.
        block: rows of a product in low precision added at a time, few enough for their float32 copy to stay in the
            cache.
    """

    def __init__(self, weight: Tensor, block: int = 4096) -> None:
        self._shape, self._device, self._block = weight.shape, weight.device, block
        self._sum: Tensor | None = None
        self._product: Tensor | None = None

    def add(self, by_logits: Tensor, states: Tensor) -> None:
        if by_logits.dtype == torch.float32:
            if self._sum is None:
                self._sum = torch.mm(by_logits.t(), states)
            else:
                self._sum.addmm_(by_logits.t(), states)
            return
        if self._sum is None or self._product is None:
            self._sum = self.total()
            self._product = torch.empty(self._shape, dtype=by_logits.dtype, device=self._device)
        torch.mm(by_logits.t(), states, out=self._product)
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


@lru_cache(maxsize=4)
def _buffer(slot: str, rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept between calls: on CPU, fresh pages of tens of MiB cost more than the pass over them. A few at most,
    # because a call has one vocabulary and one chunk size; `slot` tells apart those alive at once.
    return torch.empty(rows, vocabulary, dtype=dtype, device=device)


def release_buffers() -> None:
    """Give the chunk buffers' memory back (before an engine takes the accelerator); the next call makes new ones."""
    _buffer.cache_clear()


def softmax_and_logp(logits: Tensor, labels: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log pi(y), the largest logit, and the log of the largest probability, all [c].

    The probabilities [c, V] go to `out`, which may be `logits` itself.
    """
    chosen, highest = logits.gather(1, labels[:, None]).squeeze(1), logits.amax(-1)
    torch.softmax(logits, -1, out=out)
    # One fused kernel; log p_v = z_v - highest + peak for every v, and no number as large as a logit is rounded.
    peak = out.amax(-1).log_()
    return chosen - highest + peak, highest, peak


def entropy_(logits: Tensor, probabilities: Tensor, highest: Tensor, peak: Tensor) -> Tensor:
    """Entropy [c] in nats from what `softmax_and_logp` gave; overwrites `logits` [c, V]."""
    return -peak - row_dot(probabilities, logits.sub_(highest[:, None]))


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


def row_dot(left: Tensor, right: Tensor) -> Tensor:
    """sum_v left * right [c] of two [c, V], without a third [c, V]."""
    if left.device.type == "cpu":
        return torch.from_numpy(np.einsum("cv,cv->c", left.numpy(), right.numpy()))
    return torch.linalg.vecdot(left, right)


def select_top_(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The `size` largest of each row [c, K] unordered, and a view of `values` that holds the largest of each row.

    On CPU the rows of `values` are reordered: selecting in place is several times faster than `topk`.
    """
    if size >= values.shape[1]:
        return values, values
    if values.device.type == "cpu":
        values.numpy().partition(values.shape[1] - size, axis=-1)
        top = values[:, values.shape[1] - size :]
        return top, top
    return values.topk(size, dim=-1, sorted=False).values, values


def cat_rows(parts: list[Tensor], device: torch.device) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, device=device)
