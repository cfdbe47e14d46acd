"""Charts of the evaluations: Pass@k with bands, accuracy against diversity; and the questions that one run solves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from curiosft_cli.evaluation.metrics import interval_95, pass_at_k
from curiosft_cli.evaluation.results import BenchmarkResult, in_table_order
from curiosft_cli.evaluation.summary import PERCENT
from curiosft_cli.tools.report.curves import Chart, band, line
from curiosft_cli.tools.report.markup import text
from curiosft_cli.tools.report.read import RunRecord

DASHES: Mapping[str, str] = {"base": "dot", "sft": "dash"}


def score_charts(runs: Sequence[RunRecord]) -> list[Chart]:
    """Pass@k of each benchmark, and accuracy against diversity."""
    names = in_table_order(list({name for run in runs for model in run.models for name in model.benchmarks}))
    return [chart for name in names for chart in _of_benchmark(runs, name)]


def pass_curve(result: BenchmarkResult, samples: int) -> list[tuple[int, float, float, float]]:
    """(k, Pass@k, lower, upper) in percent for k = 1, 2, 4, ... and all samples; a 95 % interval over questions."""
    right = [round(score * samples) for score in result.values["answer"].values()]
    ks = sorted({2**power for power in range(samples.bit_length())} | {samples})
    points = []
    for k in ks:
        chances = PERCENT * np.array([pass_at_k(samples, count, k) for count in right])
        low, high = interval_95(chances) if len(right) > 1 else (chances[0], chances[0])
        points.append((k, float(chances.mean()), max(0.0, low), min(PERCENT, high)))
    return points


def _of_benchmark(runs: Sequence[RunRecord], name: str) -> Iterator[Chart]:
    passes, spread = [], []
    for number, run in enumerate(runs):
        for model in run.models:
            result = model.benchmarks.get(name)
            if result is None or not result.values.get("answer"):
                continue
            title, samples = f"{run.label} {model.label}", result.summary.get("samples") or 1
            if samples > 1:
                k, middle, low, high = map(list, zip(*pass_curve(result, samples), strict=True))
                dash = {"line": {**line("", number, k, middle)["line"], "dash": DASHES.get(model.label, "solid")}}
                passes += [band(title, number, k, low, high), line(title, number, k, middle, **dash)]
            diversity, score = result.summary.get("ngram_diversity_4"), result.summary.get("avg")
            if diversity is not None and score is not None:
                shown = {"text": [text(model.label)], "mode": "markers+text", "textposition": "top center"}
                spread.append(line(title, number, [diversity], [score], marker={"size": 11}, **shown))
    if passes:
        ks = sorted({k for trace in passes for k in trace["x"]})
        axes = {"xaxis": {"title": {"text": "k"}, "type": "log", "tickvals": ks, "ticktext": list(map(str, ks))}}
        yield Chart("scores", f"{name}: Pass@k (%), with 95 % intervals", passes, axes | {"height": 380})
    if spread:
        axes = {"xaxis": {"title": {"text": "diversity of 4-grams"}}, "yaxis": {"title": {"text": "Avg@k (%)"}}}
        yield Chart("scores", f"{name}: accuracy against diversity, Figure 4", spread, axes | {"height": 380})
