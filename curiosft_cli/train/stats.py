"""What one optimizer step reports: sums over tokens on every rank, divided once; quantiles over all of them."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curiosft_cli.objectives.baselines import select_top
from curiosft_cli.objectives.temperature import AT_TAU_MAX, AT_TAU_MIN, GUARDED
from curiosft_cli.train.start import gather_objects

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import Tensor

    from curiosft_cli.train.head.fused import HeadRows
    from curiosft_cli.train.head.scores import TeacherRows

QUANTILES = (0.1, 0.5, 0.9)
"""Reported of temperatures, entropy increments and what `SPREAD` names (our choice)."""

SPREAD = ("gap_nats", "token_weight")
"""Values of an objective whose quantiles are reported."""

TOP_FRACTION = 0.2
"""Share of the tokens that Figure 2 of the paper calls high-entropy."""


class StepStats:
    """Collects per-token values over a step's packs and reduces them over the ranks to means, minima and maxima."""

    def __init__(self, quantiles: Sequence[float] = QUANTILES, top_fraction: float = TOP_FRACTION) -> None:
        self._quantiles, self._top_fraction = quantiles, top_fraction
        self._forget()

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

    def add_whole(self, name: str, values: Tensor) -> None:
        """Keep `values` [N] one by one until the step ends, for its quantiles."""
        self._whole.setdefault(name, []).append(values.detach().float())

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add time that this rank spent on a part of the step."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def add_rows(self, rows: HeadRows) -> None:
        """Add what the head saw of one pack."""
        self.add("loss_nats", rows.loss)
        self.add("mean_token_probability", rows.logp.exp())
        self.add("mean_token_accuracy", rows.correct)
        if rows.entropy is not None:
            self.add("entropy_nats", rows.entropy)
            self.add_whole("entropy", rows.entropy)
        if rows.teacher is not None:
            self.add_teacher(rows.teacher)
        for name, values in rows.stats.items():
            self.add(name, values, extremes=True)
            if name in SPREAD:
                self.add_whole(name, values)
            if name == "token_weight":
                self.add("token_weight_negative", values < 0)

    def add_teacher(self, rows: TeacherRows) -> None:
        """Add the temperatures of one pack, the shares that ended at a bound, and the seconds of the search."""
        self.add_seconds("search", rows.search_s)
        self.add("tau", rows.tau, extremes=True)
        self.add_whole("tau", rows.tau)
        self.add_whole("delta_nats", rows.target - rows.entropy)
        self.add("teacher_entropy_top_nats", rows.entropy)
        for name, code in (("at_min", AT_TAU_MIN), ("at_max", AT_TAU_MAX), ("guarded", GUARDED)):
            self.add(f"tau_{name}", rows.status == code)

    def reduce(self, accelerator: Accelerator) -> tuple[dict[str, float], dict[str, float]]:
        """The step's values and the seconds of its parts (the slowest rank's); then starts anew.

        The mean of every name over all tokens of all ranks; `NAME_min` and `NAME_max` where `extremes` was set;
        quantiles (`NAME_q10`, ...); entropy of the top 20 % and of the rest (Figure 2). Every rank must have added the
        same names, or no name at all.
        """
        import torch

        mine: dict[str, Any] = {
            "rows": {name: (float(s), self._counts[name], *self._range(name)) for name, s in self._sums.items()},
            "ranged": sorted(self._lows),
            "whole": {name: torch.cat(parts).cpu().numpy() for name, parts in self._whole.items()},
            "seconds": dict(self._seconds),
        }
        ranks = gather_objects(accelerator, [mine])
        self._forget()
        reduced = _means(ranks)
        for name in dict.fromkeys(name for rank in ranks for name in rank["whole"]):
            values = torch.cat([torch.from_numpy(rank["whole"][name]) for rank in ranks if name in rank["whole"]])
            reduced |= self._spread(name, values)
        parts = dict.fromkeys(name for rank in ranks for name in rank["seconds"])
        return reduced, {name: max(rank["seconds"].get(name, 0.0) for rank in ranks) for name in parts}

    def _spread(self, name: str, values: Tensor) -> dict[str, float]:
        import torch

        if name != "entropy":
            marks = torch.quantile(values.double(), torch.tensor(self._quantiles, dtype=torch.float64))
            return {f"{name}_q{q * 100:.0f}": float(mark) for q, mark in zip(self._quantiles, marks, strict=True)}
        top, share = select_top(values, top_fraction=self._top_fraction), round(self._top_fraction * 100)
        split = {f"entropy_top{share}_nats": values[top], f"entropy_bottom{100 - share}_nats": values[~top]}
        return {key: float(part.double().mean()) for key, part in split.items() if part.numel()}

    def _range(self, name: str) -> tuple[float, float]:
        return float(self._lows.get(name, 0.0)), float(self._highs.get(name, 0.0))

    def _forget(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._lows: dict[str, Tensor] = {}
        self._highs: dict[str, Tensor] = {}
        self._whole: dict[str, list[Tensor]] = {}
        self._seconds: dict[str, float] = {}


def _means(ranks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    import torch

    reduced: dict[str, float] = {}
    for name in dict.fromkeys(name for rank in ranks for name in rank["rows"]):
        rows = torch.tensor([rank["rows"][name] for rank in ranks if name in rank["rows"]], dtype=torch.float64)
        reduced[name] = float(rows[:, 0].sum() / rows[:, 1].sum())
        if any(name in rank["ranged"] for rank in ranks):
            reduced[f"{name}_min"] = float(rows[:, 2].min())
            reduced[f"{name}_max"] = float(rows[:, 3].max())
    return reduced


def peak_memory_gib(device: torch.device) -> float:
    """Most memory that this process has held so far, GiB: of the accelerator, or resident on a CPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
