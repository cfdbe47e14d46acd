"""The teacher of CurioSFT: a slowly synchronised copy of the student, asked for one number per token."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from curiosft_cli.objectives.curio import sync_due
from curiosft_cli.objectives.temperature import TemperatureSettings
from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.shards import local_shard

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from curiosft_cli.run.sections import Teacher as Settings
    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.head import TeacherRows
    from curiosft_cli.train.stats import StepStats
    from curiosft_cli.train.student import Student

SMALLEST_BFLOAT16_WEIGHT = 0.1
"""Below this student weight most of a bfloat16 teacher's entries would not move at all."""


class Teacher:
    """The teacher's weights, kept as shards like the student's, and lent to the student's module to answer.

    One module serves both, so data parallel and sharding hold for the teacher as they do for the student, and it
    multiplies in the same precision.

    Args:
        student: what is copied; the teacher starts equal to it.
        settings: `[sft.teacher]`.
    """

    def __init__(self, student: Student, settings: Settings) -> None:
        self._student = student
        self._settings = settings
        self._temperature = temperature_settings(settings)
        # Parameters only, tied ones once; buffers are the student's own.
        self.weights = {name: local_shard(value).clone() for name, value in student.model.named_parameters()}
        check_dtype(settings, next(iter(self.weights.values())).dtype)

    def update(self, step: int) -> bool:
        """Mix the student in after optimizer step `step` (1-based) if it is due; return whether it was.

        phi <- (1 - s) phi + s theta (Algorithm 1, line 17), shard by shard.
        """
        import torch

        if not sync_due(step, self._settings.sync_every):
            return False
        student = [local_shard(parameter) for parameter in self._student.model.parameters()]
        torch._foreach_lerp_(list(self.weights.values()), student, self._settings.student_weight)
        return True

    def extra(self, pack: Pack, stats: StepStats) -> dict[str, Tensor]:
        """What the objective reads from the teacher; its temperatures go into the step's statistics."""
        rows = self.logp(pack)
        if pack.counted:
            stats.add_teacher(rows)
        return {"teacher_logp": rows.logp}

    def logp(self, pack: Pack) -> TeacherRows:
        """log pi_tch(y; tau) [N] of the pack's supervised tokens, with the temperatures and entropies behind it."""
        with self._lent():
            return self._student.tempered(pack, self._temperature)

    @contextmanager
    def _lent(self) -> Generator[None]:
        """The student's module with the teacher's weights and without dropout; afterwards exactly as before."""
        training = self._student.training
        self._student.eval()
        self._exchange()
        try:
            yield
        finally:
            self._exchange()
            self._student.train(training)

    def _exchange(self) -> None:
        """Let student and teacher trade weights, bit for bit."""
        import torch
        from torch.distributed.fsdp import FSDPModule
        from torch.distributed.tensor import DTensor

        if isinstance(self._student, FSDPModule):
            # A forward pass without a backward one leaves the outermost weights whole.
            self._student.reshard()
        with torch.no_grad():
            for name, parameter in self._student.model.named_parameters():
                if isinstance(parameter, DTensor):
                    # Sharding keeps views of this memory, so the values move, one shard at a time.
                    shard = local_shard(parameter)
                    held = shard.clone()
                    shard.copy_(self.weights[name])
                    self.weights[name].copy_(held)
                else:
                    parameter.data, self.weights[name] = self.weights[name], parameter.data


def open_teacher(settings: Settings, student: Student) -> Teacher | None:
    """The teacher's copy; none for `kind = "self"`, where the student's own chunks answer in the same walk."""
    if settings.kind == "self":
        student.self_teacher = temperature_settings(settings)
        return None
    return Teacher(student, settings)


def temperature_settings(settings: Settings) -> TemperatureSettings:
    """The part of `[sft.teacher]` that Eq. 7 and 8 read."""
    names = TemperatureSettings.__dataclass_fields__
    return TemperatureSettings(**{name: getattr(settings, name) for name in names})


def check_dtype(settings: Settings, dtype: torch.dtype) -> None:
    """Refuse a teacher in low precision that a small student weight could not move.

    Raises:
        CurioError: the dtype is not float32 and `student_weight` is below 0.1.
    """
    import torch

    if dtype != torch.float32 and settings.student_weight < SMALLEST_BFLOAT16_WEIGHT:
        raise CurioError(
            f"sft.teacher.student_weight = {settings.student_weight} would not move a {dtype} teacher",
            "Use float32 weights, or a student weight of 0.1 or more.",
        )
