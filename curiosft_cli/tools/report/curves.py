"""Charts of the training metrics: all runs in one picture, as plotly figures without a style of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curiosft_cli.run.rundir import TRAINING_STAGES
from curiosft_cli.tools.report.markup import text
from curiosft_cli.tools.report.read import RunRecord, is_number, over_stages, series

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8B8000", "#7F7F7F")


@dataclass(frozen=True)
class Chart:
    """One picture.

    Attributes:
        section: the part of the page that it stands in.
        title: above it; says the unit.
        traces: plotly's `data`.
        layout: plotly's `layout`, as far as it is not the same for all.
    """

    section: str
    title: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]


# Title -> the metric, or (low, middle, high) for a line with a band.
CURVES: dict[str, dict[str, tuple[str, ...]]] = {
    "sft": {
        "Loss (nats)": ("train/loss_nats",),
        "Entropy of the expert's tokens (nats)": ("train/entropy_nats",),
        "Entropy of the top 20 % of the expert's tokens (nats), Figure 2a": ("train/entropy_top20_nats",),
        "Entropy of the bottom 80 % of the expert's tokens (nats), Figure 2b": ("train/entropy_bottom80_nats",),
        "Held-out loss (nats)": ("eval/loss_nats",),
        "Held-out entropy (nats)": ("eval/entropy_nats",),
        "Teacher's temperature tau: median, 10 to 90 %": ("train/tau_q10", "train/tau_q50", "train/tau_q90"),
        "Entropy increment delta (nats): median, 10 to 90 %": (
            *("train/delta_nats_q10", "train/delta_nats_q50", "train/delta_nats_q90"),
        ),
        "Weight w of a token: median, 10 to 90 %": (
            *("train/token_weight_q10", "train/token_weight_q50", "train/token_weight_q90"),
        ),
        "Gap, log student - log teacher (nats): median, 10 to 90 %": (
            *("train/gap_nats_q10", "train/gap_nats_q50", "train/gap_nats_q90"),
        ),
        "Gradient norm": ("train/grad_norm",),
        "Tokens a second": ("tokens/s",),
        "Peak memory (GiB)": ("memory/peak_gib",),
    },
    "rl": {
        "Reward": ("reward/mean",),
        "Loss (nats)": ("train/loss_nats",),
        "Entropy of the policy (nats)": ("train/entropy_nats",),
        "Length of a completion (tokens)": ("completions/mean_length",),
        "Share of completions cut at the limit": ("completions/clipped_ratio",),
        "Share of tokens whose gradient was clipped": ("train/clipped",),
        "Groups with a signal": ("completions/groups_used",),
        "Mismatch of engine and trainer (nats)": ("train/mismatch_nats",),
        "Gradient norm": ("train/grad_norm",),
        "Seconds a step": ("time/step_s",),
        "Peak memory (GiB)": ("memory/peak_gib",),
    },
}


def curves(runs: Sequence[RunRecord]) -> list[Chart]:
    """A chart for each metric that a run has."""
    charts = list(_of_evaluations(runs))
    for stage, titles in CURVES.items():
        for title, keys in titles.items():
            traces = [trace for n, run in enumerate(runs) for trace in _traces(run, n, stage, keys)]
            if traces:
                charts.append(Chart(stage, title, traces, {"xaxis": {"title": {"text": "step"}}}))
    return charts


def colour(number: int) -> str:
    """The colour of a run."""
    return COLOURS[number % len(COLOURS)]


def faint(code: str) -> str:
    """The colour of a band around a line of the colour `#rrggbb`."""
    red, green, blue = (int(code[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.12)"


def short(values: Sequence[float]) -> list[float]:
    """Four digits each, which no eye can tell from more."""
    return [float(f"{value:.4g}") for value in values]


def line(name: str, number: int, x: Sequence[float], y: Sequence[float], **more: Any) -> dict[str, Any]:
    """A run's line. Plotly reads markup in names, so they are escaped."""
    shown = {"mode": "lines" if len(x) > 1 else "markers", "line": {"color": colour(number), "width": 1.8}}
    return {"name": text(name), "legendgroup": name, "x": list(x), "y": short(y), **shown, **more}


def band(name: str, number: int, x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> dict[str, Any]:
    """The area between two curves, as one closed outline; it comes and goes with the line of this name."""
    return {
        **{"name": text(name), "legendgroup": name, "showlegend": False, "hoverinfo": "skip"},
        **{"x": [*x, *reversed(x)], "y": short([*high, *reversed(low)])},
        **{"mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": faint(colour(number))},
    }


def _traces(run: RunRecord, number: int, stage: str, keys: Sequence[str], most: int = 1000) -> list[dict[str, Any]]:
    """The line of one metric, and its band; of more than `most` steps, evenly chosen ones."""
    found = [series(run.metrics.get(stage, []), key) for key in keys]
    steps, middle = found[len(found) // 2]
    if not steps:
        return []
    every = -(-len(steps) // most)
    traces = [line(run.label, number, steps[::every], middle[::every])]
    if len(found) > 1 and all(other == steps for other, _ in found):
        low, high = found[0][1], found[-1][1]
        traces.insert(0, band(run.label, number, steps[::every], low[::every], high[::every]))
    return traces


@dataclass(frozen=True)
class Evaluated:
    """The evaluations of one run between its steps, on one benchmark.

    Attributes:
        steps: over both stages; those of rl go on where sft ended.
        stages: the stage of each.
        scores: percent.
        entropies: of the samples, nats.
    """

    steps: list[int]
    stages: list[str]
    scores: list[float]
    entropies: list[float]


def evaluated(run: RunRecord, benchmark: str) -> Evaluated:
    """The evaluations of both stages that have a score and an entropy."""
    found = Evaluated([], [], [], [])
    before = 0
    for stage in TRAINING_STAGES:
        metrics = run.metrics.get(stage, [])
        score, entropy = f"eval/{benchmark}/avg", f"eval/{benchmark}/entropy_nats"
        both = [row for row in metrics if is_number(row.get(score)) and is_number(row.get(entropy))]
        found.steps.extend(before + row["step"] for row in both)
        found.stages.extend(stage for _ in both)
        found.scores.extend(row[score] for row in both)
        found.entropies.extend(row[entropy] for row in both)
        before += metrics[-1]["step"] if metrics else 0
    return found


def benchmarks_between_steps(runs: Sequence[RunRecord]) -> list[str]:
    """The benchmarks that were evaluated while a run trained."""
    keys = dict.fromkeys(key for run in runs for rows in run.metrics.values() for row in rows for key in row)
    parts = [key.split("/") for key in keys]
    return [part[1] for part in parts if len(part) == 3 and part[0] == "eval" and part[2] == "avg"]


def largest_k(runs: Sequence[RunRecord], benchmark: str) -> int:
    """The largest k of the Pass@k that was measured between steps; 0 without any."""
    start = f"eval/{benchmark}/pass@"
    keys = {key for run in runs for rows in run.metrics.values() for row in rows for key in row}
    found = (key.removeprefix(start) for key in keys if key.startswith(start))
    return max((int(k) for k in found if k.isdigit()), default=0)


def _of_evaluations(runs: Sequence[RunRecord]) -> Iterator[Chart]:
    for benchmark in benchmarks_between_steps(runs):
        both = [(number, run, evaluated(run, benchmark)) for number, run in enumerate(runs)]
        known = [(number, run, found) for number, run, found in both if found.steps]
        if not known:
            continue
        traces = []
        for number, run, found in known:
            marks = {"mode": "lines+markers", "marker": {"symbol": _symbols(found), "size": 7}}
            traces.append(line(run.label, number, found.steps, found.scores, yaxis="y2", **marks))
            traces.append(line(run.label, number, found.steps, found.entropies, showlegend=False, **marks))
        layout = {
            "xaxis": {"title": {"text": "step of sft (circles), then of rl (diamonds)"}},
            "yaxis": {"domain": [0, 0.46], "title": {"text": "entropy (nats)"}},
            "yaxis2": {"domain": [0.54, 1], "title": {"text": "Avg@k (%)"}},
            "height": 460,
        }
        yield Chart("story", f"{benchmark}: accuracy and entropy over both stages, Figure 1", traces, layout)
        paths = [
            line(
                *(run.label, number, short(found.entropies), found.scores),
                mode="lines+markers",
                text=[f"{stage}, step {step}" for stage, step in zip(found.stages, found.steps, strict=True)],
                marker={"symbol": _symbols(found), "size": 8},
            )
            for number, run, found in known
        ]
        axes = {"xaxis": {"title": {"text": "entropy (nats)"}}, "yaxis": {"title": {"text": "Avg@k (%)"}}}
        yield Chart("story", f"{benchmark}: accuracy against entropy", paths, axes | {"height": 460})
        if most := largest_k(runs, benchmark):
            passes = [(n, run, over_stages(run, f"eval/{benchmark}/pass@{most}")) for n, run in enumerate(runs)]
            traces = [line(run.label, n, steps, values) for n, run, (steps, values) in passes if steps]
            yield Chart(
                "story", f"{benchmark}: Pass@{most} (%) over both stages, Figure 2c", traces, {"xaxis": layout["xaxis"]}
            )


def _symbols(found: Evaluated) -> list[str]:
    return ["circle" if stage == "sft" else "diamond" for stage in found.stages]
