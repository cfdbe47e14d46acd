"""Read the result folders of evaluations: the summaries and questions of each model's benchmarks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

from curiosft_cli.data.benchmarks import BENCHMARKS
from curiosft_cli.evaluation.metrics import pass_at_k, ratio_values
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import NUMBER, TEXT, check_types, collect, read_json, read_jsonl
from curiosft_cli.run.rundir import StageDir

SUMMARY = "summary.json"
GRADES = "grades.jsonl"
QUESTIONS = "questions.jsonl"
SAMPLES = "samples.jsonl*"
FIX = "Finish this evaluation with its command, or restore the file."
SUITES = ("id", "ood")
SCORES = ("answer", "strict")
SHARE, COUNT = ("score from 0 to 1", 1.0), ("number from 0 to 10^12", 1e12)
LEGAL = {
    **dict.fromkeys((*SCORES, "diversity"), SHARE),
    **dict.fromkeys(("entropy_sum_nats", "entropy_tokens"), COUNT),
    "samples": ("number from 0 to 10^6", 1e6),
}
"""What the entries of a row of questions.jsonl must be, and the highest value of each."""
OPTIONAL_OBJECT = (dict, NoneType)
OBJECTS = ("settings", "prompt", "grader", "model")
OF_SUMMARY = {"checkpoint": TEXT, "benchmark": TEXT} | dict.fromkeys(OBJECTS, OPTIONAL_OBJECT)
OF_QUESTION = {"id": TEXT, "gold": (str, NoneType)}


@dataclass(frozen=True)
class BenchmarkResult:
    """The results of one model on one benchmark, question by question.

    Attributes:
        summary: the benchmark's summary.json.
        golds: question id -> gold.
        values: measure -> question id -> its value. "answer", "strict" and "pass@2", "pass@4", ... have gradable
            questions only; "diversity" and "entropy" have those where it was measured. The mean over the questions is
            the benchmark's number.
    """

    summary: Mapping[str, Any]
    golds: Mapping[str, str]
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class ModelResult:
    """The results of one model.

    Attributes:
        label: its name in tables.
        folder: the folder of its benchmarks.
        benchmarks: name -> results, in the order of the paper's tables.
    """

    label: str
    folder: Path
    benchmarks: Mapping[str, BenchmarkResult]


def read_results(paths: Sequence[Path]) -> list[ModelResult]:
    """The models found in these folders. A folder is that of a benchmark, a checkpoint, an evaluation or a run.

    Raises:
        CurioError: a folder does not exist, holds no finished benchmark or a part of one, or a score is not in [0, 1].
    """
    return distinct_labels([result for path in paths for result in read_models(path)])


def distinct_labels(results: Sequence[ModelResult]) -> list[ModelResult]:
    """The results; those with the same label get the ends of their paths instead."""
    names = Counter(result.label for result in results)
    return [
        result if names[result.label] == 1 else replace(result, label=_shortest_path(result.folder, results))
        for result in results
    ]


def suite_rows(names: Sequence[str]) -> dict[str, list[str]]:
    """The paper's averages over these benchmarks: title -> benchmarks in it, at least two.

    The title of an incomplete suite says so: "ID average (2 of 6)".
    """
    rows = {}
    for suite in SUITES:
        whole = [name for name, benchmark in BENCHMARKS.items() if benchmark.suite == suite]
        present = [name for name in whole if name in names]
        if len(present) > 1:
            partly = "" if len(present) == len(whole) else f" ({len(present)} of {len(whole)})"
            rows[f"{suite.upper()} average{partly}"] = present
    return rows


def suite_averages(summaries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """`{"ID average": {"avg", "standard_error"}, ...}` of one model, in percent: plain means over benchmarks.

    Benchmarks are independent, so their squared errors add up. A benchmark without a score is left out.
    """
    scored = {row["benchmark"]: row for row in summaries if row["avg"] is not None}
    averages: dict[str, dict[str, float | None]] = {}
    for title, names in suite_rows(list(scored)).items():
        errors = [scored[name]["standard_error"] for name in names]
        known = [error for error in errors if error is not None]
        averages[title] = {
            "avg": sum(scored[name]["avg"] for name in names) / len(names),
            "standard_error": math.hypot(*known) / len(names) if len(known) == len(names) else None,
        }
    return averages


def in_table_order(names: Sequence[str]) -> list[str]:
    """Known benchmarks in the order of the paper's tables, then the others by name."""
    known = list(BENCHMARKS)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def read_models(path: Path, left_out: list[str] | None = None) -> list[ModelResult]:
    """As `read_results`, of one folder. `left_out` collects a message for what cannot be read; None: it is raised."""
    if not path.is_dir():
        raise CurioError(f"{path} is not a folder", "Name a result folder, such as runs/NAME/eval or one inside it.")
    models: dict[Path, dict[str, BenchmarkResult]] = {}
    for stage in {path, *path.parents[:2], *(file.parent for file in path.rglob("status.json"))}:
        try:
            StageDir(stage).is_complete()  # its results are those that it made
        except CurioError as error:
            collect(error, left_out)
    for file in sorted(path.rglob(SUMMARY)):
        try:
            summary = read_json(file, FIX)
            if "benchmark" in summary:
                check_types(summary, OF_SUMMARY, str(file), FIX)
                read = _questions(file.parent, summary)
                models.setdefault(file.parent.parent, {})[summary["benchmark"]] = read
        except CurioError as error:
            collect(error, left_out)
    for file in path.rglob(SAMPLES):
        if not (file.parent / SUMMARY).exists():
            collect(CurioError(f"{file.parent} is not finished: it has no {SUMMARY}", FIX), left_out)
    if not models:
        what = f"{path} holds no finished benchmark ({SUMMARY} beside {QUESTIONS})"
        collect(CurioError(what, "Run `curiosft eval` first."), left_out)
    return [
        ModelResult(
            str(next(iter(found.values())).summary["checkpoint"]),
            folder,
            {name: found[name] for name in in_table_order(list(found))},
        )
        for folder, found in models.items()
    ]


def _questions(folder: Path, summary: Mapping[str, Any]) -> BenchmarkResult:
    file = folder / QUESTIONS
    rows = list(read_jsonl(file, types=OF_QUESTION))
    listed, different = summary.get("questions", len(rows)), len({str(row.get("id")) for row in rows})
    if not rows or (listed, different) != (len(rows), len(rows)):
        raise CurioError(f"{file} has {different} questions in {len(rows)} lines, {SUMMARY} counts {listed}", FIX)
    for number, row in enumerate(rows, start=1):
        if not {"id", "gold", *SCORES} <= row.keys():
            raise CurioError(f"{file}, line {number} lacks the id, the gold or a score", FIX)
        for name, (what, most) in LEGAL.items():
            value = row.get(name)
            if value is not None and not (type(value) in NUMBER and 0 <= value <= most):
                raise CurioError(f"{file}, line {number}: {name} = {value!r} is no {what}", FIX)
    return BenchmarkResult(summary, {row["id"]: row["gold"] for row in rows}, _values(rows))


def _values(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """See `BenchmarkResult.values`. A result of an older version lacks some measures."""
    values = {
        name: {row["id"]: row[name] for row in rows if row.get(name) is not None} for name in (*SCORES, "diversity")
    }
    samples = {row["id"]: int(row.get("samples") or 1) for row in rows}
    most = max(samples.values())
    for k in sorted({most, *(2**power for power in range(1, most.bit_length()))} - {0, 1}):
        values[f"pass@{k}"] = {
            id_: pass_at_k(samples[id_], round(answer * samples[id_]), k)
            for id_, answer in values["answer"].items()
            if samples[id_] >= k
        }
    measured = [row for row in rows if row.get("entropy_sum_nats") is not None and row.get("entropy_tokens")]
    if measured:
        sums, tokens = ([row[name] for row in measured] for name in ("entropy_sum_nats", "entropy_tokens"))
        entropies = ratio_values(sums, tokens).tolist()
        values["entropy"] = {row["id"]: value for row, value in zip(measured, entropies, strict=True)}
    return {name: found for name, found in values.items() if found}


def _shortest_path(folder: Path, results: Sequence[ModelResult]) -> str:
    """The shortest end of the path that no other result has."""
    parts = folder.resolve().parts
    others = [result.folder.resolve().parts for result in results if result.folder.resolve() != folder.resolve()]
    for length in range(1, len(parts) + 1):
        if all(other[-length:] != parts[-length:] for other in others):
            return "/".join(parts[-length:])
    return str(folder)
