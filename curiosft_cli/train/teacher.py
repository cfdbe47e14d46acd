"""The teacher of CurioSFT: a copy of the student, synchronised every few steps, that gives one number per token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curiosft_cli.objectives.curio import mix, sync_due
from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.weight_copy import WeightCopy

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from curiosft_cli.run.sections import TeacherSettings
    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.head.scores import TeacherRows
    from curiosft_cli.train.saved_state import SavedState
    from curiosft_cli.train.stats import StepStats
    from curiosft_cli.train.student import Student

SMALLEST_BFLOAT16_WEIGHT = 0.1
"""Below this student weight most of a bfloat16 teacher's entries would not move at all."""

STATE_PREFIX = "teacher."


class Teacher:
    """The teacher's weights and temperature: supplies `teacher_logp` and `teacher_tau`.

    Args:
        student: what is copied; the teacher starts equal to it.
        settings: `[sft.teacher]`.
        stats: records the temperatures; None records nothing.
    """

    def __init__(self, student: Student, settings: TeacherSettings, stats: StepStats | None = None) -> None:
        self._student = student
        self.settings = settings
        self._stats = stats
        dtype = teacher_dtype(settings, student.compute_dtype)
        self._copy = WeightCopy(student, offload=settings.offload, dtype=dtype)

    @property
    def weights(self) -> dict[str, Tensor]:
        """This rank's shards of the teacher's weights phi, by parameter name."""
        return self._copy.weights

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        """log pi_tch(y; tau) [N] of each pack, all at the weights that the teacher has in this step."""
        with self._copy.swapped_in():
            found = [self._student.tempered(pack, self.settings) for pack in packs]
        for pack, rows in zip(packs, found, strict=True):
            if pack.counted and self._stats:
                self._stats.add_teacher(rows)
        return [{"teacher_logp": rows.logp, "teacher_tau": rows.tau} for rows in found]

    def states(self, pack: Pack) -> tuple[Tensor, Tensor]:
        """Hidden states [N, H] and head weight [V, H], for an objective that reads whole distributions."""
        with self._copy.swapped_in():
            return self._student.states(pack)

    def logp(self, pack: Pack) -> TeacherRows:
        """log pi_tch(y; tau) of one pack, with its temperatures and entropies."""
        with self._copy.swapped_in():
            return self._student.tempered(pack, self.settings)

    def update(self, step: int) -> bool:
        """Synchronise after optimizer step `step` (1-based) if it is due (Algorithm 1, lines 16-18); whether it was."""
        if not sync_due(step, self.settings.sync_every):
            return False
        for phi, theta in self._copy.beside_student():
            phi.copy_(mix(phi, theta, self.settings.student_weight))
        return True

    def state(self, step: int) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {f"{STATE_PREFIX}{name}": weight for name, weight in self.weights.items()}

    def load(self, saved: SavedState) -> None:
        """Take up what `state` gave."""
        self._copy.load(saved, STATE_PREFIX)


def teacher_dtype(settings: TeacherSettings, compute_dtype: torch.dtype) -> torch.dtype:
    """What the copy is kept in: `auto` follows the products, unless a small student weight could not move it.

    Raises:
        CurioError: low precision was asked for and `student_weight` is below 0.1.
    """
    import torch

    small = settings.student_weight < SMALLEST_BFLOAT16_WEIGHT
    if settings.dtype == "auto":
        return torch.float32 if small else compute_dtype
    if settings.dtype == "bfloat16" and small:
        raise CurioError(
            f"sft.teacher.student_weight = {settings.student_weight} would not move a bfloat16 teacher",
            "Set sft.teacher.dtype=float32, or a student weight of 0.1 or more.",
        )
    return getattr(torch, settings.dtype)
