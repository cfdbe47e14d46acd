"""What an objective reads beside the student's own pass, one supplier per need.

The teacher's log-probabilities, the frozen base model's, the old policy's, and the tokens of highest entropy. Each
supplier answers for all packs of an optimizer step at once, before the step's first gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from curiosft_cli.objectives.baselines import select_top
from curiosft_cli.train.checkpoint import OWN
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.lora import Adapters
from curiosft_cli.train.start import gather_rows
from curiosft_cli.train.teacher import Teacher, temperature_settings
from curiosft_cli.train.weight_copy import WeightCopy, without_dropout

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.objectives.temperature import TemperatureSettings
    from curiosft_cli.run.sections import Sft
    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.loop import Loop
    from curiosft_cli.train.student import Student

PacksOf = Callable[[int], list["Pack"]]


class Supplier(Protocol):
    """Gives every pack of a step one `extra`; keeps what a resumed run needs."""

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        """One mapping per pack, before optimizer step `step` (0-based)."""
        ...

    def update(self, step: int) -> bool:
        """Look at the student after optimizer step `step` (1-based)."""
        ...

    def state(self, step: int) -> dict[str, Tensor]:
        """Tensors of a checkpoint after `step` steps."""
        ...

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        ...


class Selection:
    """The tokens of highest entropy among all counted tokens of the step, on all ranks: supplies `selected`."""

    def __init__(self, student: Student, accelerator: Accelerator, top_fraction: float) -> None:
        self._student, self._accelerator, self._top_fraction = student, accelerator, top_fraction

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        import torch

        with without_dropout(self._student):
            own = [self._student.scored(pack, HeadPass(entropy=True)).entropy for pack in packs]
        counted = [h for pack, h in zip(packs, own, strict=True) if pack.counted and h is not None]
        mine = torch.cat(counted) if counted else torch.zeros(0, device=self._accelerator.device)
        everywhere, start = gather_rows(self._accelerator, mine)
        chosen = select_top(everywhere, self._top_fraction)[start : start + len(mine)]
        parts = iter(chosen.split([len(h) for h in counted]))
        return [
            {"selected": next(parts) if pack.counted else torch.zeros_like(pack.labels, dtype=torch.bool)}
            for pack in packs
        ]

    def update(self, step: int) -> bool:
        return False

    def state(self, step: int) -> dict[str, Tensor]:
        return {}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """There is nothing to keep."""


class OldPolicy:
    """log pi_old(y) of the expert tokens, kept for a window of steps (PSFT): supplies `old_logp`.

    Args:
        student: asked at the start of each window, for every step in it.
        packs_of: the packs of any 0-based step on this rank.
        refresh: optimizer steps of a window.
        total: the last window ends with this step.
    """

    PREFIX = f"{OWN}old_logp."

    def __init__(self, student: Student, packs_of: PacksOf, refresh: int, total: int) -> None:
        self._student, self._packs_of, self._refresh, self._total = student, packs_of, refresh, total
        self._kept: dict[tuple[int, int], Tensor] = {}

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        if step % self._refresh == 0:
            self._kept = {}
            with without_dropout(self._student):
                for ahead in range(step, min(step + self._refresh, self._total)):
                    for place, pack in enumerate(packs if ahead == step else self._packs_of(ahead)):
                        self._kept[ahead, place] = self._student.scored(pack).logp
        return [{"old_logp": self._kept[step, place]} for place in range(len(packs))]

    def update(self, step: int) -> bool:
        return False

    def state(self, step: int) -> dict[str, Tensor]:
        return {f"{self.PREFIX}{at}.{place}": kept for (at, place), kept in self._kept.items() if at >= step}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        device = next(self._student.parameters()).device
        for name, kept in saved.items():
            if name.startswith(self.PREFIX):
                at, place = name.removeprefix(self.PREFIX).split(".")
                self._kept[int(at), int(place)] = kept.to(device)


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

    def load(self, saved: Mapping[str, Tensor]) -> None:
        self._copy.load(saved, self.PREFIX)


class Inputs:
    """All suppliers that one objective needs.

    Args:
        suppliers: one for each value of `extra`.
        base: the frozen base model, where the objective reads its logits.
        self_teacher: how the student is tempered where it is its own teacher.
    """

    def __init__(
        self,
        suppliers: Sequence[Supplier],
        base: FrozenBase | None = None,
        self_teacher: TemperatureSettings | None = None,
    ) -> None:
        self._suppliers, self._base, self._self_teacher = suppliers, base, self_teacher

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        """The `extra` of each pack of optimizer step `step` (0-based)."""
        extras: list[dict[str, Tensor]] = [{} for _ in packs]
        for supplier in self._suppliers:
            for extra, more in zip(extras, supplier.supply(step, packs), strict=True):
                extra |= more
        return extras

    def head_pass(self, pack: Pack) -> HeadPass:
        """The training pass over the head for this pack: with the base model's states and the self-teacher."""
        reference = self._base.states(pack) if self._base else None
        return HeadPass(entropy=True, reference=reference, self_teacher=self._self_teacher)

    def update(self, step: int) -> None:
        """After optimizer step `step` (1-based)."""
        for supplier in self._suppliers:
            supplier.update(step)

    def state(self, step: int) -> dict[str, Tensor]:
        """Tensors of a checkpoint after `step` steps."""
        return {name: tensor for supplier in self._suppliers for name, tensor in supplier.state(step).items()}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for supplier in self._suppliers:
            supplier.load(saved)


SUPPLIED = frozenset({"teacher_logp", "selected", "old_logp", "ref_logp", "ref_logits", "entropy", "logits"})
"""What a supervised objective may need: from `open_inputs`, or (the last two) from the head itself."""


def open_inputs(objective: BoundObjective, sft: Sft, loop: Loop, packs_of: PacksOf, total: int) -> Inputs:
    """The suppliers of what `objective` needs; the student's weights must still be those that training starts from."""
    student, needs, params = loop.student_module, objective.needs, objective.params
    suppliers: list[Supplier] = [Adapters(student.model)] if sft.lora.rank else []
    base: FrozenBase | None = None
    self_teacher: TemperatureSettings | None = None
    if "teacher_logp" in needs:
        if sft.teacher.kind == "self":
            self_teacher = temperature_settings(sft.teacher)
        else:
            suppliers.append(Teacher(student, sft.teacher, loop.stats))
    if "selected" in needs:
        suppliers.append(Selection(student, loop.accelerator, params["top_fraction"]))
    if "old_logp" in needs:
        suppliers.append(OldPolicy(student, packs_of, params["psft_old_refresh"], total))
    if needs & {"ref_logp", "ref_logits"}:
        base = FrozenBase(student, whole="ref_logits" in needs)
        suppliers.append(base)
    return Inputs(suppliers, base, self_teacher)
