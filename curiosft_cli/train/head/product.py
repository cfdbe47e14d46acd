"""The products with the head's weight: logits of a chunk, and the two gradients.

Axes: N supervised positions, c positions of a chunk, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class HeadProduct:
    """The product of N hidden states with the head's weight, one chunk at a time.

    Attributes:
        hidden: [N, H].
        weight: [V, H].
        chunk: positions of one product; bounds memory.
        dtype: of the products.
    """

    hidden: Tensor
    weight: Tensor
    chunk: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        self.hidden = self.hidden.detach().to(self.dtype)
        self.weight = self.weight.detach().to(self.dtype)

    def chunks(self) -> Iterator[slice]:
        """The positions of each chunk; one empty chunk where N is 0."""
        for start in range(0, max(1, len(self.hidden)), self.chunk):
            yield slice(start, min(start + self.chunk, len(self.hidden)))

    def logits(self, rows: slice) -> Tensor:
        """[c, V] in the dtype of the products, at temperature 1."""
        return self.hidden[rows] @ self.weight.t()


class WeightGradient:
    """The gradient of the head's weight, summed over the chunks in float32 whatever the dtype of the products.

    Attributes:
        total: [V, H], or None before the first chunk.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None

    def add(self, by_logits: Tensor, states: Tensor, block: int = 4096) -> None:
        """Add the share of one chunk, from `by_logits` [c, V] and `states` [c, H]; `block` rows of V at a time."""
        if self.total is None:
            self.total = (by_logits.t() @ states).float()
        elif by_logits.dtype == torch.float32:
            self.total.addmm_(by_logits.t(), states)
        else:
            # In blocks: to add bfloat16 to float32 a CPU makes a float32 copy, here of one block.
            for rows, more in zip(self.total.split(block), (by_logits.t() @ states).split(block), strict=True):
                rows += more


@contextmanager
def detached(device: torch.device) -> Generator[None]:
    """No gradient and no autocast. Not in inference mode either: autograd cannot save tensors made there."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        yield
