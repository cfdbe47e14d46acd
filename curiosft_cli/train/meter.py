"""What code does to the hardware, counted operation by operation: bytes that are alive, products, bytes that are moved.

It works on fake tensors, which have shapes and no memory. Torch's own `MemTracker` does not take the second forward
pass of activation checkpointing, and knows no teacher and no head.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

ATEN = torch.ops.aten
ATTENTION = {
    ATEN._scaled_dot_product_flash_attention_for_cpu: 1.0,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: 2.5,
}
"""Products in units of those of the forward pass; the registry of torch lacks this kernel."""
PICKED = (ATEN.embedding, ATEN.index, ATEN.gather, ATEN.index_select, ATEN.embedding_dense_backward)
"""These read only what they pick."""


class Meter(TorchDispatchMode):
    """Use it as a context. A storage counts from the operation that makes it until nothing refers to it.

    Attributes:
        term: what a new storage is counted as.
        live: bytes alive, by term.
        peaks: `live` at the largest sum within each phase, by the name of the phase.
        flops: floating-point operations of the products in each phase.
        current: the phase.
        moved: bytes that operations which are no products read and write in each phase.
    """

    def __init__(self) -> None:
        super().__init__()
        self.term = "activations"
        self.live: Counter[str] = Counter()
        self.peaks: dict[str, Counter[str]] = {}
        self.flops: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.current = ""
        self._known: dict[int, tuple[str, int]] = {}
        self._sums_in_place = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        self._count_work(func, args, kwargs or {}, made, read, written)
        # A copy of a weight in another precision belongs to the weights, not to the activations.
        copied = self.term == "activations" and func is ATEN._to_copy.default and self._term_of(args[0]) == "weights"
        if self._sums_in_place and func is ATEN.add.Tensor:
            self._pass_on(args[0])
        for tensor in written:
            self._see(tensor, "copies for products" if copied else self.term)
        return made

    def name(self, term: str, tensors: Iterable[Tensor]) -> None:
        """Count these tensors as `term` from now on."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            if key in self._known:
                old, size = self._known[key]
                self.live[old] -= size
                self.live[term] += size
                self._known[key] = term, size
            else:
                self._see(tensor, term)

    @contextmanager
    def phase(self, name: str, *, sums_in_place: bool = False) -> Generator[None]:
        """Keep peak and work inside under this name.

        Args:
            name: of the phase.
            sums_in_place: a sum takes the place of its first number, as in autograd without a meter.
        """
        self.term, self._sums_in_place = "activations", sums_in_place
        self.enter(name)
        self._compare()
        try:
            yield
        finally:
            self.current, self.term, self._sums_in_place = "", "activations", False

    def enter(self, name: str) -> None:
        """Go on to another phase, within `phase`; it counts from its first operation on."""
        self.current = name
        self.peaks.setdefault(name, Counter())

    def _count_work(
        self, func: Any, args: Any, kwargs: Any, made: Any, read: list[Tensor], written: list[Tensor]
    ) -> None:
        packet = func._overloadpacket
        if not self.current or not read + written or func.is_view or packet is ATEN._unsafe_view:
            return
        flops, moved = 0, 0
        if (times := ATTENTION.get(packet)) is not None:
            batch, heads, length, size = read[0].shape[-4:] if times == 1.0 else read[1].shape[-4:]
            # Causal: half of the scores. Scores and weighted values are one product each.
            flops = int(times * 2 * batch * heads * length * length * size)
        elif packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=made)
        else:
            # What returns nothing, as AdamW, writes what it reads, but for the gradient.
            wrote = sum(_bytes(tensor) for tensor in written or read)
            moved = wrote + (wrote if packet in PICKED else sum(_bytes(tensor) for tensor in read))
        self.flops[self.current] += flops
        self.moved[self.current] += moved

    def _term_of(self, tensor: Tensor) -> str | None:
        return self._known.get(tensor.untyped_storage()._cdata, (None, 0))[0]

    def _see(self, tensor: Tensor, term: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = term, storage.nbytes()
        self.live[term] += storage.nbytes()
        weakref.finalize(storage, self._forget, key)
        self._compare()

    def _pass_on(self, tensor: Tensor) -> None:
        key = tensor.untyped_storage()._cdata
        term, size = self._known.get(key, ("", 0))
        self.live[term] -= size
        self._known[key] = term, 0

    def _forget(self, key: int) -> None:
        term, size = self._known.pop(key)
        self.live[term] -= size

    def _compare(self) -> None:
        if self.current and self.live.total() > self.peaks[self.current].total():
            self.peaks[self.current] = Counter(self.live)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class Stopwatch:
    """What stands in a `Meter`'s place on real tensors: processor seconds of this thread in each phase, and no terms.

    Attributes:
        term: not used.
        current: the phase.
        took: seconds by the name of the phase.
    """

    def __init__(self) -> None:
        self.term = self.current = ""
        self.took: defaultdict[str, float] = defaultdict(float)
        self._since = 0.0

    def name(self, term: str, tensors: Iterable[Tensor]) -> None:
        """Nothing."""

    @contextmanager
    def phase(self, name: str, *, sums_in_place: bool = False) -> Generator[None]:
        """Count the time inside under this name."""
        self.enter(name)
        try:
            yield
        finally:
            self.enter("")

    def enter(self, name: str) -> None:
        """Go on to another phase."""
        now = time.thread_time()
        if self.current:
            self.took[self.current] += now - self._since
        self.current, self._since = name, now
