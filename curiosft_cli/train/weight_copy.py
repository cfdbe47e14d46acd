"""A second set of weights for the student's module: swapped in for a pass, and taken out again bit for bit."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from curiosft_cli.train.lora import trained
from curiosft_cli.train.shards import local_shard

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from curiosft_cli.train.saved_state import SavedState
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
        # Parameters only, tied ones once; buffers are the student's own.
        self.weights: dict[str, Tensor] = {
            name: local_shard(parameter).to("cpu" if offload else parameter.device, dtype, copy=True)
            for name, parameter in trained(student.model).items()
        }

    def beside_student(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each weight of the copy to be written to, and the student's in the same dtype and on the same device."""
        for phi, theta in zip(self.weights.values(), trained(self._student.model).values(), strict=True):
            yield phi, local_shard(theta).to(phi)

    def load(self, saved: SavedState, prefix: str) -> None:
        """Take the values of `saved`, whose names start with `prefix`."""
        for name, parameter in trained(self._student.model).items():
            self.weights[name].copy_(saved.shard(f"{prefix}{name}", parameter))

    @contextmanager
    def swapped_in(self) -> Generator[None]:
        """The student's module with these weights and without dropout; afterwards exactly as before."""
        from torch.distributed.fsdp import FSDPModule

        sharded = isinstance(self._student, FSDPModule)
        with without_dropout(self._student), self._values_moved() if sharded else self._parameters_changed():
            yield

    @contextmanager
    def _values_moved(self) -> Generator[None]:
        """Sharding keeps views of its memory, so the values move into it and out of it, one shard at a time."""
        held: dict[str, Tensor] = {}
        for name, parameter in trained(self._student.model).items():
            shard = local_shard(parameter)
            held[name] = shard.clone()
            shard.copy_(self.weights[name])
        try:
            yield
        finally:
            for name, parameter in trained(self._student.model).items():
                local_shard(parameter).copy_(held[name])

    @contextmanager
    def _parameters_changed(self) -> Generator[None]:
        """Other parameters stand in the student's places.

        Not other data in the student's parameters: data of another dtype cuts off the hooks with which data parallel
        sums gradients.
        """
        from torch import nn

        copies = {
            id(parameter): nn.Parameter(self.weights[name].to(parameter.device), requires_grad=False)
            for name, parameter in trained(self._student.model).items()
        }
        places = [
            (part, name, parameter)
            for part in self._student.modules()
            for name, parameter in part._parameters.items()
            if parameter is not None and id(parameter) in copies
        ]
        try:
            for part, name, parameter in places:
                part._parameters[name] = copies[id(parameter)]
            yield
        finally:
            for part, name, parameter in places:
                part._parameters[name] = parameter
