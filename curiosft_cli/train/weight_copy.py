"""A second set of weights for the student's module: swapped in for a pass, and taken out again bit for bit."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from curiosft_cli.train.shards import local_shard

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from curiosft_cli.train.student import Student


@contextmanager
def without_dropout(student: nn.Module) -> Generator[None]:
    """The module in evaluation mode; afterwards in the mode it was in."""
    training = student.training
    student.eval()
    try:
        yield
    finally:
        student.train(training)


class WeightCopy:
    """A copy of the student's trainable weights, kept as shards like the student's.

    One module serves both, so data parallel and sharding hold for the copy as they do for the student, and it
    multiplies in the same precision. What is not trained (the base under an adapter) is shared, not copied.

    Args:
        student: what is copied; the copy starts equal to it.
        offload: keep the copy in main memory while it is not swapped in.
        dtype: of the copy's weights; None is the student's own.
    """

    def __init__(self, student: Student, *, offload: bool = False, dtype: torch.dtype | None = None) -> None:
        self._student = student
        self._offload = offload
        # Parameters only, tied ones once; buffers are the student's own.
        self.weights: dict[str, Tensor] = {
            name: local_shard(parameter).to("cpu" if offload else parameter.device, dtype, copy=True)
            for name, parameter in self._trained().items()
        }

    def beside_student(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each weight of the copy to be written to, and the student's in the same dtype and on the same device."""
        for phi, theta in zip(self.weights.values(), self._trained().values(), strict=True):
            yield phi, local_shard(theta).to(phi)

    def load(self, saved: Mapping[str, Tensor], prefix: str) -> None:
        """Take the values of `saved`, whose names start with `prefix`."""
        for name, weight in self.weights.items():
            weight.copy_(saved[f"{prefix}{name}"])

    @contextmanager
    def swapped_in(self) -> Generator[None]:
        """The student's module with these weights and without dropout; afterwards exactly as before."""
        with without_dropout(self._student):
            held = self._swap_in()
            try:
                yield
            finally:
                self._swap_out(held)

    def _swap_in(self) -> dict[str, Tensor]:
        """Put these weights in the student's place; returns the student's own."""
        from torch.distributed.tensor import DTensor

        self._reshard()
        held: dict[str, Tensor] = {}
        for name, parameter in self._trained().items():
            if isinstance(parameter, DTensor):
                # Sharding keeps views of this memory, so the values move, one shard at a time.
                shard = local_shard(parameter)
                held[name] = shard.clone()
                shard.copy_(self.weights[name])
            else:
                held[name] = parameter.data
                parameter.data = self.weights[name].to(parameter.device)
        return held

    def _swap_out(self, held: Mapping[str, Tensor]) -> None:
        from torch.distributed.tensor import DTensor

        self._reshard()
        for name, parameter in self._trained().items():
            if isinstance(parameter, DTensor):
                local_shard(parameter).copy_(held[name])
            else:
                parameter.data = held[name]

    def _reshard(self) -> None:
        from torch.distributed.fsdp import FSDPModule

        if isinstance(self._student, FSDPModule):
            # A forward pass without a backward one leaves the outermost weights whole.
            self._student.reshard()

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._student.model.named_parameters() if p.requires_grad}
