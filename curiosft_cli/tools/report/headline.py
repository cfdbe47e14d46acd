"""The first tables of the page: scores as in the paper's Tables 2 and 3, and what they are evidence for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean, median
from typing import Any

from curiosft_cli.evaluation.comparison import Comparison, Flip, Method, comparisons, flips
from curiosft_cli.evaluation.metrics import NORMAL_95
from curiosft_cli.evaluation.paired import LEVEL
from curiosft_cli.evaluation.results import ModelResult, in_table_order, suite_averages
from curiosft_cli.run.errors import CurioError
from curiosft_cli.tools.report.markup import Row, notes, table, text
from curiosft_cli.tools.report.paper import ENTROPY, PaperRow, matching_row
from curiosft_cli.tools.report.read import RunRecord, series

NONE = "–"
PAPER = "paper"


def headline(runs: Sequence[RunRecord]) -> str:
    """Scores of every checkpoint with 95 % intervals, entropy, diversity and speed; below, the paired verdicts."""
    benchmarks = in_table_order(list({name for run in runs for model in run.models for name in model.benchmarks}))
    if not benchmarks:
        return notes(["No evaluation has ended yet: `curiosft eval` makes the scores."])
    averages = list(dict.fromkeys(title for run in runs for model in run.models for title in _averages(model)))
    columns = [*benchmarks, *averages]
    header = ["run", "checkpoint", *columns, "entropy (nats)", "diversity", "tokens", "s a step", "tokens/s"]
    rows: list[Row] = []
    for run in runs:
        for model in run.models:
            rows.append([run.label, model.label, *_scores(model, columns), *_spread(model), *_speed(run, model.label)])
            if paper := matching_row(run.config, model.label):
                rows.append(_paper_cells(paper, columns))
    remarks = [
        "Scores are Avg@k in percent, ± half of the 95 % interval over questions. Entropy is that of the samples. "
        "Diversity is that of 4-grams, from 0 to 1. Tokens are the mean length. Speed is the median over steps.",
        *(
            ["Paper: Table 2 or 3. The run has the settings of that row's recipe."]
            if any(row[0] == PAPER for row in rows)
            else []
        ),
    ]
    return table(header, rows, left=2) + notes(remarks)


def verdicts(runs: Sequence[RunRecord]) -> str:
    """Every other run against the first, checkpoint by checkpoint; one run alone: its checkpoints against the first."""
    rows: list[Row] = []
    flipped: list[Row] = []
    remarks: list[str] = []
    for first, *others in families(runs):
        try:
            rows += [_verdict_cells(first.label, row) for row in comparisons([first, *others], ["answer"])]
            flipped += [_flip_cells(first.label, flip) for other in others for flip in flips(first, other, "answer")]
        except CurioError as error:
            remarks.append(error.what)
    if not rows:
        return notes(remarks)
    header = ["model", "against", "benchmark", "its", "model's", "difference", "95 %", "p", "p (Holm)", "verdict"]
    remarks.append(
        "Paired over the questions that both have, as `curiosft compare` does it. p (Holm) is corrected for the "
        f"comparisons with one model; below {LEVEL} it counts as evidence."
    )
    return table(header, rows, left=3) + notes(remarks) + _flip_table(flipped)


def families(runs: Sequence[RunRecord]) -> list[list[Method]]:
    """Models to compare, each list with the first of it: those of one checkpoint name, or all of the only run."""
    models = [(model.label, Method(f"{run.label} {model.label}", (model,))) for run in runs for model in run.models]
    if len(runs) == 1:
        found = [[method for _, method in models]]
    else:
        found = [[method for name, method in models if name == first.label] for first in runs[0].models]
    return [family for family in found if len(family) > 1]


def _verdict_cells(against: str, row: Comparison) -> Row:
    interval = f"[{row.low:+.1f}, {row.high:+.1f}]" if isfinite(row.low) and isfinite(row.high) else NONE
    return [
        *(row.model, against, row.benchmark, f"{row.first:.1f}", f"{row.second:.1f}", f"{row.difference:+.1f}"),
        *(interval, f"{row.p:.4f}", f"{row.corrected_p:.4f}", row.verdict),
    ]


def _flip_cells(against: str, flip: Flip) -> Row:
    return [flip.model, against, flip.benchmark, flip.question, flip.gold, f"{flip.first:.0f}", f"{flip.second:.0f}"]


def _flip_table(rows: Sequence[Row], most: int = 200) -> str:
    """The questions that only one of two models solves, folded."""
    if not rows:
        return ""
    header = ["model", "against", "benchmark", "question", "gold", "its right %", "model's"]
    cut = f", the first {most} are here; `curiosft compare --flips --format json` has all" if len(rows) > most else ""
    title = f"Questions that only one of two solves: {len(rows):,}{cut}"
    return f"<details><summary>{text(title)}</summary>{table(header, rows[:most], left=5)}</details>"


def _averages(model: ModelResult) -> dict[str, dict[str, float | None]]:
    return suite_averages(
        [{"avg": None, "standard_error": None, **result.summary} for result in model.benchmarks.values()]
    )


def _scores(model: ModelResult, columns: Sequence[str]) -> list[str]:
    found: dict[str, Mapping[str, Any]] = {name: result.summary for name, result in model.benchmarks.items()}
    found |= _averages(model)
    return [_score(found.get(column, {})) for column in columns]


def _score(numbers: Mapping[str, Any]) -> str:
    score, error = numbers.get("avg"), numbers.get("standard_error")
    if score is None:
        return NONE
    return f"{score:.1f}" if error is None else f"{score:.1f} ± {NORMAL_95 * error:.1f}"


def _spread(model: ModelResult) -> list[str]:
    """Entropy, diversity and length: plain means over the benchmarks that have them."""
    cells = []
    for key, form in (("entropy_nats", ".3f"), ("ngram_diversity_4", ".2f"), ("tokens_mean", ".0f")):
        values = [result.summary.get(key) for result in model.benchmarks.values()]
        known = [value for value in values if value is not None]
        cells.append(f"{fmean(known):{form}}" if known else NONE)
    return cells


def _speed(run: RunRecord, checkpoint: str) -> list[str]:
    metrics = run.metrics.get(checkpoint.partition("@")[0], [])
    found = [series(metrics, key)[1] for key in ("time/step_s", "tokens/s")]
    return [f"{median(values):.3g}" if values else NONE for values in found]


def _paper_cells(paper: PaperRow, columns: Sequence[str]) -> Row:
    cells = [f"{paper.numbers[column]:.1f}" if column in paper.numbers else NONE for column in columns]
    entropy = f"{paper.numbers[ENTROPY]:.2f}" if ENTROPY in paper.numbers else NONE
    return [PAPER, paper.name, *cells, entropy, *[NONE] * 4]
