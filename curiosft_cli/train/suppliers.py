"""What an objective reads beside the student's own pass, one supplier per need.

The teacher's log-probabilities and temperatures, the frozen base model's, the old policy's, and what depends on all
tokens of the step. Each supplier does all packs of an optimizer step at once, before the step's first gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from curiosft_cli.objectives.baselines import old_policy_steps, select_top
from curiosft_cli.objectives.newer import cayley_floor
from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.checkpoint import OTHER_VERSION, OWN
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.start import gather_rows
from curiosft_cli.train.teacher import Teacher
from curiosft_cli.train.weight_copy import WeightCopy, without_dropout

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.objectives.temperature import TemperatureSettings
    from curiosft_cli.run.sections import Sft
    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.loop import Loop
    from curiosft_cli.train.saved_state import SavedState
    from curiosft_cli.train.student import Student

PacksOf = Callable[[int], list["Pack"]]


class Supplier(Protocol):
    """Gives every pack of a step one `extra`; keeps what a resumed run needs."""

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        """One mapping per pack, before optimizer step `step` (0-based)."""
        ...

    def update(self, step: int) -> bool:
        """Follow the student after optimizer step `step` (1-based); return whether anything changed."""
        ...

    def state(self, step: int) -> dict[str, Tensor]:
        """Tensors of a checkpoint after `step` steps."""
        ...

    def load(self, saved: SavedState) -> None:
        """Continue from what `state` gave."""
        ...


class StepWide:
    """A value of each token that depends on all counted tokens of the step, on all ranks.

    Args:
        student: scores the tokens.
        accelerator: gathers the scores of all ranks.
        decide: the scores [N] of the whole step to the values [N].
        reads: the score, a field of `ScoredRows`.
        supplies: the name of the values.
    """

    def __init__(
        self,
        student: Student,
        accelerator: Accelerator,
        decide: Callable[[Tensor], Tensor],
        reads: str = "entropy",
        supplies: str = "selected",
    ) -> None:
        self._student, self._accelerator, self._decide = student, accelerator, decide
        self._reads, self._supplies = reads, supplies

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        import torch

        with without_dropout(self._student):
            own = [getattr(self._student.scored(pack, HeadPass(entropy=True)), self._reads) for pack in packs]
        counted = [scores for pack, scores in zip(packs, own, strict=True) if pack.counted]
        mine = torch.cat(counted) if counted else torch.zeros(0, device=self._accelerator.device)
        everywhere, start = gather_rows(self._accelerator, mine)
        values = self._decide(everywhere)[start : start + len(mine)]
        parts = iter(values.split([len(scores) for scores in counted]))
        return [
            {self._supplies: next(parts) if pack.counted else values.new_zeros(pack.labels.shape)} for pack in packs
        ]

    def update(self, step: int) -> bool:
        return False

    def state(self, step: int) -> dict[str, Tensor]:
        return {}

    def load(self, saved: SavedState) -> None:
        """Nothing is kept."""


class OldPolicy:
    """log pi_old(y) of the expert tokens, kept for a window of steps (PSFT): supplies `old_logp`.

    Args:
        student: scores all steps of a window with its weights at the start of the window.
        packs_of: the packs of any 0-based step on this rank.
        window: the steps that are scored before a step, see `old_policy_steps`.
        total: the last window ends with this step.
    """

    PREFIX = f"{OWN}old_logp."

    def __init__(self, student: Student, packs_of: PacksOf, window: Callable[[int], range], total: int) -> None:
        self._student, self._packs_of, self._window, self._total = student, packs_of, window, total
        self._kept: dict[tuple[int, int], Tensor] = {}
        """By step and row of the step."""

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        if window := self._window(step):
            self._kept = {}
            with without_dropout(self._student):
                for ahead in window[: self._total - step]:
                    for pack in packs if ahead == step else self._packs_of(ahead):
                        self._keep(ahead, pack, self._student.scored(pack).logp)
        return [{"old_logp": self._of(step, pack)} for pack in packs]

    def _keep(self, step: int, pack: Pack, logp: Tensor) -> None:
        if pack.counted:
            rows = logp.split(pack.sequence.bincount(minlength=len(pack.members)).tolist())
            self._kept |= {(step, member): row for member, row in zip(pack.members, rows, strict=True)}

    def _of(self, step: int, pack: Pack) -> Tensor:
        import torch

        if not pack.counted:  # it weighs nothing
            return torch.zeros(pack.labels.shape, device=pack.labels.device)
        return torch.cat([self._kept[step, member] for member in pack.members])

    def update(self, step: int) -> bool:
        return False

    def state(self, step: int) -> dict[str, Tensor]:
        return {f"{self.PREFIX}{at}.{row}": kept for (at, row), kept in self._kept.items() if at >= step}

    def load(self, saved: SavedState) -> None:
        """Rows of all ranks: with another number of ranks, others are this one's."""
        device = next(self._student.parameters()).device
        for name in saved.names(self.PREFIX):
            at, row = name.removeprefix(self.PREFIX).split(".")
            self._kept[int(at), int(row)] = saved.tensor(name).to(device)


class FrozenBase:
    """The model that training started from: supplies `ref_logp`, and its hidden states for the full KL."""

    PREFIX = "base."

    def __init__(self, student: Student, *, whole: bool) -> None:
        self._student, self._whole = student, whole
        self._copy = WeightCopy(student)

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        if self._whole:
            return [{} for _ in packs]
        with self._copy.swapped_in():
            return [{"ref_logp": self._student.scored(pack).logp} for pack in packs]

    def states(self, pack: Pack) -> tuple[Tensor, Tensor] | None:
        """Hidden states [N, H] and head weight [V, H], where the objective reads whole distributions."""
        if not self._whole:
            return None
        with self._copy.swapped_in():
            return self._student.states(pack)

    def update(self, step: int) -> bool:
        return False

    def state(self, step: int) -> dict[str, Tensor]:
        return {f"{self.PREFIX}{name}": weight for name, weight in self._copy.weights.items()}

    def load(self, saved: SavedState) -> None:
        self._copy.load(saved, self.PREFIX)


class Suppliers:
    """All suppliers that one objective needs.

    Args:
        suppliers: one for each value of `extra`.
        reference: the frozen base model or the teacher, where the objective reads its logits.
        self_teacher: how the student is tempered where it is its own teacher.
    """

    def __init__(
        self,
        suppliers: Sequence[Supplier],
        reference: FrozenBase | Teacher | None = None,
        self_teacher: TemperatureSettings | None = None,
    ) -> None:
        self._suppliers, self._reference, self._self_teacher = suppliers, reference, self_teacher

    @property
    def teacher(self) -> Teacher | None:
        """The teacher with weights of its own, if there is one."""
        return next((supplier for supplier in self._suppliers if isinstance(supplier, Teacher)), None)

    @property
    def tempering(self) -> TemperatureSettings | None:
        """How the teacher is tempered, also where the student is its own; None without a teacher."""
        return self.teacher.settings if self.teacher else self._self_teacher

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        """The `extra` of each pack of optimizer step `step` (0-based)."""
        extras: list[dict[str, Tensor]] = [{} for _ in packs]
        for supplier in self._suppliers:
            for extra, more in zip(extras, supplier.supply(step, packs), strict=True):
                extra |= more
        return extras

    def head_pass(self, pack: Pack) -> HeadPass:
        """The training pass over the head for this pack: with the reference's states and the self-teacher."""
        reference = self._reference.states(pack) if self._reference else None
        return HeadPass(entropy=True, reference=reference, self_teacher=self._self_teacher)

    def update(self, step: int) -> None:
        """After optimizer step `step` (1-based)."""
        for supplier in self._suppliers:
            supplier.update(step)

    def state(self, step: int) -> dict[str, Tensor]:
        """Tensors of a checkpoint after `step` steps."""
        return {name: tensor for supplier in self._suppliers for name, tensor in supplier.state(step).items()}

    def load(self, saved: SavedState) -> None:
        """Continue from what `state` gave.

        Raises:
            CurioError: a part is missing.
        """
        try:
            for supplier in self._suppliers:
                supplier.load(saved)
        except (KeyError, RuntimeError) as error:
            raise CurioError(f"the checkpoint lacks a part of the state: {error}", OTHER_VERSION) from error


SUPPLIED = frozenset({"teacher_logp", "teacher_tau", "selected", "focus_floor", "old_logp", "ref_logp"}) | {
    *("ref_logits", "entropy", "logits"),
}
"""What a supervised objective may need: from a supplier, or (`entropy` and `logits`) from the head itself."""


def open_suppliers(objective: BoundObjective, sft: Sft, loop: Loop, packs_of: PacksOf, total: int) -> Suppliers:
    """The suppliers of what `objective` needs; the student's weights must still be those that training starts from."""
    student, needs = loop.student_module, objective.needs
    suppliers: list[Supplier] = []
    reference: FrozenBase | Teacher | None = None
    self_teacher: TemperatureSettings | None = None
    if needs & {"teacher_logp", "teacher_tau"}:
        if sft.teacher.kind == "self":
            self_teacher = sft.teacher
        else:
            teacher = Teacher(student, sft.teacher, loop.stats)
            suppliers.append(teacher)
            reference = teacher if "ref_logits" in needs else None
    if "selected" in needs:
        suppliers.append(StepWide(student, loop.accelerator, objective.filled(select_top)))
    if "focus_floor" in needs:
        suppliers.append(StepWide(student, loop.accelerator, objective.filled(cayley_floor), "logp", "focus_floor"))
    if "old_logp" in needs:
        suppliers.append(OldPolicy(student, packs_of, objective.filled(old_policy_steps), total))
    if needs & {"ref_logp", "ref_logits"} and reference is None:
        reference = FrozenBase(student, whole="ref_logits" in needs)
        suppliers.append(reference)
    return Suppliers(suppliers, reference, self_teacher)
