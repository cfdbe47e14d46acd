"""Figures 1, 2, 4 and 5 in the paper's form, as PDF and PNG for a text of one's own."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.files import write_bytes
from curiosft_cli.tools.report.curves import benchmarks_between_steps, colour, evaluated, largest_k
from curiosft_cli.tools.report.read import RunRecord, is_number, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 3.3, 2.3
"""Of one panel, in inches: a column of a two-column paper."""


def write_figures(runs: Sequence[RunRecord], folder: Path, dpi: int = 300) -> list[str]:
    """Write `figure-N.pdf` and `.png`; return a line for each file, and for each figure that these runs cannot give.

    Args:
        folder: made when missing.
        dpi: dots per inch of the PNG.

    Raises:
        CurioError: exit code 3 where matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401 (only asks)
    except ImportError:
        fix = "Install the extra: pip install 'curiosft[report]'."
        raise CurioError("figures need matplotlib", fix, MISSING) from None
    lines = []
    for number, (draw, needs) in FIGURES.items():
        figure = draw(runs)
        if figure is None:
            lines.append(f"no figure {number}: {needs}")
            continue
        for kind in ("pdf", "png"):
            file = folder / f"figure-{number}.{kind}"
            content = io.BytesIO()
            dated = {"CreationDate": None} if kind == "pdf" else {}
            figure.savefig(content, format=kind, dpi=dpi, bbox_inches="tight", metadata=dated)
            write_bytes(file, content.getvalue())
            lines.append(str(file))
    return lines


def figure_1(runs: Sequence[RunRecord]) -> Figure | None:
    """Accuracy and entropy of the samples over the steps of both stages, on the first benchmark that has them."""
    for benchmark in benchmarks_between_steps(runs):
        known = [(n, run, found) for n, run in enumerate(runs) if (found := evaluated(run, benchmark)).steps]
        if known:
            figure, axes = _panels(2)
            for number, run, found in known:
                axes[0].plot(found.steps, found.scores, "o-", **_style(number, run))
                axes[1].plot(found.steps, found.entropies, "o-", **_style(number, run))
                for panel in axes if {"sft", "rl"} <= set(found.stages) else ():
                    panel.axvline(run.metrics["sft"][-1]["step"], color="0.7", linewidth=0.8, linestyle=":")
            return _labelled(figure, axes, "step (SFT, then RL)", [f"{benchmark} Avg@k (%)", "entropy (nats)"])
    return None


def figure_2(runs: Sequence[RunRecord]) -> Figure | None:
    """Entropy of the expert's tokens, top 20 % and bottom 80 %, and Pass@k of the largest k, over the SFT steps."""
    keys = ["train/entropy_top20_nats", "train/entropy_bottom80_nats"]
    titles = ["entropy, top 20 % (nats)", "entropy, bottom 80 % (nats)"]
    for benchmark in benchmarks_between_steps(runs)[:1]:
        if most := largest_k(runs, benchmark):
            keys.append(f"eval/{benchmark}/pass@{most}")
            titles.append(f"{benchmark} Pass@{most} (%)")
    curves = [[series(run.metrics.get("sft", []), key) for run in runs] for key in keys]
    if not any(steps for steps, _ in curves[0]):
        return None
    figure, axes = _panels(len(keys))
    for panel, of_runs in zip(axes, curves, strict=True):
        for number, (run, (steps, values)) in enumerate(zip(runs, of_runs, strict=True)):
            panel.plot(steps, values, **_style(number, run))
    return _labelled(figure, axes, "SFT step", titles)


def figure_4(runs: Sequence[RunRecord]) -> Figure | None:
    """Accuracy against the diversity of 4-grams, each a mean over the benchmarks of the last evaluated checkpoint."""
    points = [(number, run, _mean(run, "ngram_diversity_4"), _mean(run, "avg")) for number, run in enumerate(runs)]
    known = [(number, run, x, y) for number, run, x, y in points if x is not None and y is not None]
    if not known:
        return None
    figure, axes = _panels(1)
    for number, run, x, y in known:
        axes[0].scatter([x], [y], s=40, color=colour(number), label=_label(run))
    return _labelled(figure, axes, "diversity of 4-grams", ["accuracy (%)"])


def figure_5(runs: Sequence[RunRecord]) -> Figure | None:
    """Accuracy against the pivot of Eq. 7, and as a line the runs without a teacher."""
    swept, plain = {}, []
    for run in runs:
        sft, score = run.config.get("sft", {}), _mean(run, "avg")
        if score is not None and str(sft.get("objective")).startswith("curio"):
            if is_number(pivot := sft.get("teacher", {}).get("h_pivot")):
                swept[pivot] = score
        elif score is not None:
            plain.append((run, score))
    if len(swept) < 2:
        return None
    figure, axes = _panels(1)
    axes[0].plot(sorted(swept), [swept[pivot] for pivot in sorted(swept)], "o-", color=colour(0), label="CurioSFT")
    for number, (run, score) in enumerate(plain, start=1):
        axes[0].axhline(score, color=colour(number), linestyle="--", linewidth=1, label=_label(run))
    return _labelled(figure, axes, "H_pivot (nats)", ["accuracy (%)"])


Draw = Callable[[Sequence[RunRecord]], "Figure | None"]
FIGURES: dict[int, tuple[Draw, str]] = {
    1: (figure_1, "it needs eval_steps and eval_benchmarks in sft or rl"),
    2: (figure_2, "it needs steps of sft"),
    4: (figure_4, "it needs an evaluation with two samples a question or more"),
    5: (figure_5, "it needs evaluated runs with two or more values of sft.teacher.h_pivot"),
}


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH * count, HEIGHT), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _labelled(figure: Figure, axes: Sequence[Axes], x: str, ys: Sequence[str]) -> Figure:
    for panel, y in zip(axes, ys, strict=True):
        panel.set_xlabel(x, fontsize=8)
        panel.set_ylabel(y, fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(color="0.9", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def _style(number: int, run: RunRecord) -> dict[str, Any]:
    return {"color": colour(number), "label": _label(run), "linewidth": 1.3, "markersize": 3}


def _label(run: RunRecord) -> str:
    """The run's name as text: matplotlib reads dollar signs as mathematics."""
    return run.label.replace("$", r"\$")


def _mean(run: RunRecord, key: str) -> float | None:
    """A number of the last evaluated checkpoint, as a mean over its benchmarks."""
    found = list(_numbers(run, key))
    return fmean(found) if found else None


def _numbers(run: RunRecord, key: str) -> Iterator[float]:
    if run.models:
        values = [result.summary.get(key) for result in run.models[-1].benchmarks.values()]
        yield from (value for value in values if value is not None)
