"""The teacher of CurioSFT: a slowly synchronised copy of the student, asked for one number per token."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from curiosft_cli.objectives.curio import sync_due
from curiosft_cli.objectives.temperature import TemperatureSettings
from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.head import TeacherRows, teacher_logp
from curiosft_cli.train.load import body_and_head

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from curiosft_cli.run.sections import Teacher as Settings
    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.stats import StepStats
    from curiosft_cli.train.student import Student

SMALLEST_BFLOAT16_WEIGHT = 0.1
"""Below this student weight most of a bfloat16 teacher's entries would not move at all."""


class Teacher:
    """A second set of weights and the temperature search on its logits.

    Args:
        student: what is copied; the teacher starts equal to it.
        settings: `[sft.teacher]`.
        chunk: positions per step of the chunked head.
        compute_dtype: dtype of the products.
    """

    def __init__(self, student: PreTrainedModel, settings: Settings, *, chunk: int, compute_dtype: torch.dtype) -> None:
        self.model = copy.deepcopy(student).eval().requires_grad_(False)
        self._settings = settings
        self._temperature = temperature_settings(settings)
        self._chunk = chunk
        self._compute_dtype = compute_dtype
        check_dtype(settings, next(self.model.parameters()).dtype)

    def update(self, step: int, student: PreTrainedModel) -> bool:
        """Mix the student in after optimizer step `step` (1-based) if it is due; return whether it was.

        phi <- (1 - s) phi + s theta (Algorithm 1, line 17), shard by shard; tied weights once, buffers not at all.
        """
        import torch

        if not sync_due(step, self._settings.sync_every):
            return False
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.model.parameters()),
                [parameter.detach() for parameter in student.parameters()],
                self._settings.student_weight,
            )
        return True

    def extra(self, pack: Pack, stats: StepStats) -> dict[str, Tensor]:
        """What the objective reads from the teacher; its temperatures go into the step's statistics."""
        rows = self.logp(pack)
        if pack.counted:
            stats.add_teacher(rows)
        return {"teacher_logp": rows.logp}

    def logp(self, pack: Pack) -> TeacherRows:
        """log pi_tch(y; tau) [N] of the pack's supervised tokens, with the temperatures and entropies behind it."""
        import torch

        body, weight = body_and_head(self.model)
        with torch.no_grad():
            hidden = body(input_ids=pack.input_ids, position_ids=pack.position_ids)[0, pack.predictors]
            return teacher_logp(
                hidden, weight, pack.labels, self._temperature, chunk=self._chunk, compute_dtype=self._compute_dtype
            )


def open_teacher(settings: Settings, student: Student) -> Teacher | None:
    """The teacher's copy; none for `kind = "self"`, where the student's own chunks answer in the same walk."""
    if settings.kind == "self":
        student.self_teacher = temperature_settings(settings)
        return None
    return Teacher(student.model, settings, chunk=student.chunk, compute_dtype=student.compute_dtype)


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
