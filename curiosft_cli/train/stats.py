"""What one optimizer step reports: sums over tokens on every rank, divided once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from curiosft_cli.objectives.temperature import AT_TAU_MAX, AT_TAU_MIN, GUARDED

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from curiosft_cli.train.head import TeacherRows


class StepStats:
    """Collects per-token values over a step's packs and reduces them over the ranks to means, minima and maxima."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._lows: dict[str, Tensor] = {}
        self._highs: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, *, extremes: bool = False) -> None:
        """Add `values` [N] of one pack; `extremes` also reports their minimum and maximum."""
        if values.numel() == 0:
            return
        values = values.detach().double()
        self._sums[name] = self._sums.get(name, 0.0) + values.sum()
        self._counts[name] = self._counts.get(name, 0) + values.numel()
        if extremes:
            low, high = values.min(), values.max()
            self._lows[name] = low.minimum(self._lows[name]) if name in self._lows else low
            self._highs[name] = high.maximum(self._highs[name]) if name in self._highs else high

    def add_teacher(self, rows: TeacherRows) -> None:
        """Add the temperatures of one pack, and the shares that ended at a bound."""
        self.add("tau", rows.tau, extremes=True)
        self.add("teacher_entropy_top_nats", rows.entropy)
        for name, code in (("at_min", AT_TAU_MIN), ("at_max", AT_TAU_MAX), ("guarded", GUARDED)):
            self.add(f"tau_{name}", rows.status == code)

    def reduce(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean of every name over all tokens of all ranks; `NAME_min` and `NAME_max` where asked for.

        Every rank must have added the same names, or none at all.
        """
        import torch
        from accelerate.utils import gather_object

        mine = {name: (float(total), self._counts[name], *self._range(name)) for name, total in self._sums.items()}
        everywhere: list[Mapping[str, tuple[float, int, float, float]]] = (
            gather_object([mine]) if accelerator.num_processes > 1 else [mine]
        )
        reduced: dict[str, float] = {}
        for name in dict.fromkeys(name for rank in everywhere for name in rank):
            rows = torch.tensor([rank[name] for rank in everywhere if name in rank], dtype=torch.float64)
            reduced[name] = float(rows[:, 0].sum() / rows[:, 1].sum())
            if name in self._lows:
                reduced[f"{name}_min"] = float(rows[:, 2].min())
                reduced[f"{name}_max"] = float(rows[:, 3].max())
        return reduced

    def _range(self, name: str) -> tuple[float, float]:
        return float(self._lows.get(name, 0.0)), float(self._highs.get(name, 0.0))
