"""`curiosft compare A B [C ...]`: which result is better, and is there evidence for it?

    pair the questions that both models have  -> per benchmark, and per suite of the paper
    paired bootstrap over questions           -> difference, 95 % interval, p
    Holm's correction over the whole table    -> p-values, and a verdict in words

Every other model is compared with the first one. The samples of a question are averaged first, so results with
different numbers of samples can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curiosft_cli.evaluation.bootstrap import (
    DRAWS,
    FEWEST_QUESTIONS,
    LEVEL,
    PairedDifference,
    holm,
    paired_bootstrap,
    verdict,
)
from curiosft_cli.evaluation.results import BenchmarkResult, ModelResult, read_results, suite_rows
from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.run.resume_policy import keys_with
from curiosft_cli.run.sections import Eval
from curiosft_cli.run.sections.base import COMPARABLE, RESUME_FREE
from curiosft_cli.tools.tables import STYLES

PERCENT = 100.0
SCORES = {"answer": "the answer-only score", "strict": "the strict reward"}
# Settings that may differ without a note, because they do not change the scores.
UNREMARKED = frozenset((*keys_with(RESUME_FREE, Eval), *keys_with(COMPARABLE, Eval)))


@dataclass(frozen=True)
class Comparison:
    """One line of the table: a model against the first one, on one benchmark or suite. Scores are in percent."""

    model: str
    benchmark: str
    questions: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    corrected_p: float
    verdict: str


def compare(paths: Sequence[Path], *, style: str = "text", strict: bool = False, seed: int = 0) -> str:
    """Compare the models found in these folders with the first of them; return the table and notes as text.

    Args:
        paths: result folders; a folder with several checkpoints gives one model for each.
        style: "text", "markdown", "latex", "csv" or "json".
        strict: compare the strict reward, not the answer-only score.
        seed: seed of the bootstrap.

    Raises:
        CurioError: fewer than two models, or two that share no question.
    """
    if style not in (*STYLES, "json"):
        raise CurioError(f"--format {style} does not exist", nearest(style, [*STYLES, "json"]))
    results = read_results(paths)
    if len(results) < 2:
        raise CurioError(f"found one model, '{results[0].label}', in {paths[0]}", "Name at least two results.")
    score = "strict" if strict else "answer"
    rows = comparison(results, score, seed)
    notes = remarks(results)
    if style == "json":
        return json.dumps({"score": score, "rows": [vars(row) for row in rows], "notes": notes}, ensure_ascii=False)
    write = STYLES[style]
    table = write.table(_cells(rows, results[0].label), 2)
    if style == "csv":
        return table
    return "\n".join([table, "", *map(write.line, explanation(rows, results[0].label, score) + notes)])


def comparison(results: Sequence[ModelResult], score: str, seed: int) -> list[Comparison]:
    """Compare each model with the first one, on each shared benchmark and on the averages over these."""
    first, *others = results
    lines: list[tuple[str, str, PairedDifference, float, float]] = []
    for other in others:
        pairs = _pairs(first, other, score)
        groups = {name: [name] for name in pairs} | suite_rows(list(pairs))
        for title, names in groups.items():
            difference = paired_bootstrap({name: pairs[name] for name in names}, seed)
            means = [float(np.mean([np.mean(pairs[name][side]) for name in names])) for side in (0, 1)]
            lines.append((other.label, title, difference, means[0], means[1]))
    corrected = holm([difference.p for _, _, difference, _, _ in lines])
    return [
        Comparison(
            model,
            title,
            difference.questions,
            *(PERCENT * value for value in (a, b, difference.mean, difference.low, difference.high)),
            difference.p,
            p,
            verdict(difference, p),
        )
        for (model, title, difference, a, b), p in zip(lines, corrected, strict=True)
    ]


def explanation(rows: Sequence[Comparison], first: str, score: str) -> list[str]:
    """The table in sentences."""
    lines = [
        f"{SCORES[score]} in percent, compared with {first}; intervals are 95 %, from {DRAWS:,} paired draws of "
        f"questions; p is corrected for the {len(rows)} comparison{'s' if len(rows) > 1 else ''} of the table (Holm), "
        f"and below {LEVEL} counts as evidence."
    ]
    for model in dict.fromkeys(row.model for row in rows):
        verdicts = [
            f"{row.verdict} on {row.benchmark} ({row.difference:+.1f})"
            for row in rows
            if row.model == model and row.verdict in ("better", "worse")
        ]
        lines.append(f"{model}: {'; '.join(verdicts) if verdicts else f'no evidence of a difference from {first}'}.")
    if any(row.verdict == "too few questions" for row in rows):
        lines.append(f"With fewer than {FEWEST_QUESTIONS} shared questions there is no verdict.")
    return lines


def remarks(results: Sequence[ModelResult]) -> list[str]:
    """Notes on what makes the results hard to compare: different graders, settings or questions."""
    first, *others = results
    notes = []
    for other in others:
        for name, ours in first.benchmarks.items():
            if theirs := other.benchmarks.get(name):
                shared = len(ours.golds.keys() & theirs.golds.keys())
                if shared < max(len(ours.golds), len(theirs.golds)):
                    counts = f"{len(ours.golds)} and {len(theirs.golds)} questions, {shared} shared"
                    notes.append(f"note: {name}: {first.label} and {other.label} have {counts}; only those are paired")
                notes += [
                    f"note: {name}: {first.label} and {other.label} differ in {key}: {a} and {b}"
                    for key, a, b in _differing_settings(ours.summary, theirs.summary)
                ]
    return notes


def _pairs(first: ModelResult, other: ModelResult, score: str) -> dict[str, tuple[list[float], list[float]]]:
    pairs = {}
    for name, ours in first.benchmarks.items():
        theirs = other.benchmarks.get(name)
        if theirs is None:
            continue
        shared = [id_ for id_ in ours.scores[score] if id_ in theirs.scores[score]]
        _check_golds(name, shared, ours, theirs, (first, other))
        if shared:
            pairs[name] = ([ours.scores[score][id_] for id_ in shared], [theirs.scores[score][id_] for id_ in shared])
    if not pairs:
        raise CurioError(
            f"{first.folder} and {other.folder} share no question "
            f"({', '.join(first.benchmarks)}; {', '.join(other.benchmarks)})",
            "Evaluate both on the same benchmark.",
        )
    return pairs


def _check_golds(
    name: str,
    shared: Sequence[str],
    ours: BenchmarkResult,
    theirs: BenchmarkResult,
    models: tuple[ModelResult, ModelResult],
) -> None:
    for id_ in shared:
        if ours.golds[id_] != theirs.golds[id_]:
            raise CurioError(
                f"{name}, question {id_}: the gold is '{ours.golds[id_]}' in {models[0].folder} "
                f"and '{theirs.golds[id_]}' in {models[1].folder}",
                "These are different questions under one id; evaluate both on the same file.",
            )


def _differing_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    ours, theirs = _settings(a), _settings(b)
    keys = [key for key in ours | theirs if key not in UNREMARKED and ours.get(key) != theirs.get(key)]
    return [(key, _shown(ours.get(key)), _shown(theirs.get(key))) for key in keys]


def _settings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling, prompt and grader settings. A key that an old result lacks gets today's default."""
    defaults = Eval().model_dump(mode="json")
    return defaults | summary.get("settings", {}) | summary.get("prompt", {}) | {"grader": _grader_name(summary)}


def _shown(value: Any, longest: int = 40) -> str:
    text = repr(value) if isinstance(value, str) and (not value.strip() or "\n" in value) else str(value)
    return text if len(text) <= longest else f"{text[:longest]}…"


def _grader_name(summary: Mapping[str, Any]) -> str:
    grader = summary.get("grader", {})
    return f"{grader.get('name')} {grader.get('version')} ({grader.get('code')})"


def _cells(rows: Sequence[Comparison], first: str) -> list[list[str]]:
    header = ["model", "benchmark", "questions", first, "model's", "difference", "95 %", "p (Holm)", "verdict"]
    return [header] + [
        [
            row.model,
            row.benchmark,
            str(row.questions) if row.benchmark.split()[0] not in ("ID", "OOD") else "",
            f"{row.first:.1f}",
            f"{row.second:.1f}",
            f"{row.difference:+.1f}",
            f"[{row.low:+.1f}, {row.high:+.1f}]",
            f"{row.corrected_p:.4f}",
            row.verdict,
        ]
        for row in rows
    ]
