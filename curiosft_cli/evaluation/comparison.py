"""Compare methods: differences with intervals and verdicts, questions that only one of two solves, and a gate for CI.

    pair the questions that all runs of two methods have  -> per benchmark, and per suite of the paper
    paired test over questions and runs                   -> difference, 95 % interval, p
    Holm's correction over the whole table                -> p-values, and a verdict in words

Every other method is compared with the first one. A method is one run, or several that differ in their seed. The
samples of a question are averaged first, so results with different numbers of samples can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curiosft_cli.evaluation.paired import PairedDifference, holm, paired_difference, verdict
from curiosft_cli.evaluation.results import SCORES, ModelResult, distinct_labels, read_models, suite_rows
from curiosft_cli.evaluation.summary import PERCENT
from curiosft_cli.run.errors import CurioError

Matrix = NDArray[np.float64]
NEUTRAL = {"better": "higher", "worse": "lower"}
"""Verdicts on what is neither good nor bad: diversity and entropy."""


@dataclass(frozen=True)
class Method:
    """What is compared: the runs of one method, usually one.

    Attributes:
        label: its name in tables.
        runs: their results.
    """

    label: str
    runs: tuple[ModelResult, ...]

    def benchmarks(self) -> list[str]:
        """The benchmarks that every run has."""
        return [name for name in self.runs[0].benchmarks if all(name in run.benchmarks for run in self.runs)]

    def values(self, benchmark: str, measure: str) -> list[Mapping[str, float]]:
        """Question id -> value, for each run; {} for a run without this measure."""
        return [run.benchmarks[benchmark].values.get(measure, {}) for run in self.runs]


@dataclass(frozen=True)
class Comparison:
    """One line of the table: a method against the first one, on one benchmark or suite.

    Scores and Pass@k are in percent, entropy is in nats, diversity is from 0 to 1.
    """

    model: str
    benchmark: str
    measure: str
    questions: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    corrected_p: float
    verdict: str


@dataclass(frozen=True)
class Flip:
    """A question that only one of two methods solves: the share of right samples in percent, 0 for the other one."""

    model: str
    benchmark: str
    question: str
    gold: str
    first: float
    second: float


def read_methods(arguments: Sequence[str]) -> list[Method]:
    """The methods that these arguments name.

    `FOLDER` is a result folder; each model in it is a method. `NAME=FOLDER` is a run of the method NAME; FOLDER may be
    a pattern such as `runs/curio-*/eval`, and all folders of one NAME are its runs.

    Raises:
        CurioError: a pattern finds nothing, a folder of a method holds several models, one is given twice, two methods
            have one name, or see `read_results`.
    """
    found: list[tuple[str, ModelResult]] = []
    for argument in arguments:
        name, equals, pattern = argument.partition("=")
        if not equals or Path(argument).exists():
            found += [("", model) for model in read_models(Path(argument))]
            continue
        folders = [Path(path) for path in sorted(glob(pattern))]
        if not name or not folders:
            raise CurioError(f"{argument} finds no folder", "Write NAME=FOLDER, where FOLDER may be a pattern.")
        for folder in folders:
            models = read_models(folder)
            if len(models) > 1:
                labels = ", ".join(model.label for model in models)
                raise CurioError(
                    f"{folder} holds {len(models)} models ({labels}), and a run of '{name}' is one",
                    f"Name the folder of one, e.g. {name}={models[0].folder}.",
                )
            found.append((name, models[0]))
    methods: dict[str, list[ModelResult]] = {}
    for (name, _), model in zip(found, distinct_labels([model for _, model in found]), strict=True):
        runs = methods.setdefault(name or model.label, [])
        if runs and not name:
            raise CurioError(f"two methods are called '{model.label}'", "Give each a name of its own: NAME=FOLDER.")
        if any(run.folder.resolve() == model.folder.resolve() for run in runs):
            raise CurioError(f"{model.folder} is given twice as a run of '{name}'", "Give each run once.")
        runs.append(model)
    return [Method(label, tuple(runs)) for label, runs in methods.items()]


def comparisons(
    methods: Sequence[Method], measures: Sequence[str], *, min_difference: float = 0.0, seed: int = 0
) -> list[Comparison]:
    """Compare each method with the first one, on each shared benchmark and on the averages over these.

    Args:
        methods: at least two.
        measures: what to compare; see `BenchmarkResult.values`. One that a benchmark lacks is left out there.
        min_difference: a smaller difference of scores does not matter, in percentage points.
        seed: seed of the test's draws.

    Raises:
        CurioError: two methods share no question, or one question has two golds.
    """
    first, *others = methods
    lines: list[tuple[str, str, str, PairedDifference, list[float], float]] = []
    for other in others:
        for measure in measures:
            pairs = {name: (a, b) for name, (_, a, b) in _paired(first, other, measure).items()}
            margin = min_difference / PERCENT if unit(measure) == PERCENT else 0.0
            for title, names in ({name: [name] for name in pairs} | suite_rows(list(pairs))).items():
                found = paired_difference({name: pairs[name] for name in names}, seed, margin=margin)
                means = [float(np.mean([np.mean(pairs[name][side]) for name in names])) for side in (0, 1)]
                lines.append((other.label, title, measure, found, means, margin))
    corrected = holm([found.p for _, _, _, found, _, _ in lines])
    rows = []
    for (model, title, measure, found, means, margin), p in zip(lines, corrected, strict=True):
        numbers = (unit(measure) * value for value in (*means, found.mean, found.low, found.high))
        said = verdict(found, p, margin)
        said = NEUTRAL.get(said, said) if unit(measure) != PERCENT else said
        rows.append(Comparison(model, title, measure, found.questions, *numbers, found.p, p, said))
    return rows


def other_measures(methods: Sequence[Method]) -> list[str]:
    """Pass@k, diversity and entropy, as far as the results have them; Pass@1 is the answer-only score."""
    found = {
        name
        for method in methods
        for run in method.runs
        for result in run.benchmarks.values()
        for name in result.values
        if name not in SCORES
    }
    return sorted(found, key=lambda name: (not name.startswith("pass@"), len(name), name))


def unit(measure: str) -> float:
    """What one whole of the measure is in tables: 100 percent, or 1 nat and 1."""
    return 1.0 if measure in ("diversity", "entropy") else PERCENT


def flips(first: Method, other: Method, score: str) -> list[Flip]:
    """The questions of which only one of the two has a right sample in any run, the surest first in each benchmark."""
    found: list[Flip] = []
    for name, (ids, ours, theirs) in _paired(first, other, score).items():
        golds = first.runs[0].benchmarks[name].golds
        rows = [
            Flip(other.label, name, id_, golds[id_], PERCENT * float(a), PERCENT * float(b))
            for id_, a, b in zip(ids, np.mean(ours, axis=0), np.mean(theirs, axis=0), strict=True)
            if (a > 0) != (b > 0)
        ]
        found += sorted(rows, key=lambda flip: -abs(flip.second - flip.first))
    return found


def gate(rows: Sequence[Comparison], min_difference: float) -> tuple[list[Comparison], list[Comparison]]:
    """The comparisons that fail a gate, and those that cannot decide.

    A comparison fails if its verdict is "worse". It cannot decide with too few questions; nor, with a minimum
    difference, if its interval holds a loss of that size.
    """
    failed = [row for row in rows if row.verdict == "worse"]
    undecided = [
        row
        for row in rows
        if row.verdict == "too few questions"
        or (min_difference > 0 and row.low <= -min_difference and row.verdict not in ("worse", "identical"))
    ]
    return failed, undecided


def _paired(first: Method, other: Method, measure: str) -> dict[str, tuple[list[str], Matrix, Matrix]]:
    """Benchmark -> (ids of the questions that all runs of both have, values [runs, questions] of each)."""
    pairs = {}
    for name in first.benchmarks():
        if name not in other.benchmarks():
            continue
        ours, theirs = first.values(name, measure), other.values(name, measure)
        shared = [id_ for id_ in ours[0] if all(id_ in values for values in (*ours, *theirs))]
        _check_golds(name, shared, [*first.runs, *other.runs])
        if shared:
            a, b = (np.array([[values[id_] for id_ in shared] for values in side]) for side in (ours, theirs))
            pairs[name] = (shared, a, b)
    if not pairs and measure in SCORES:
        raise CurioError(
            f"{first.runs[0].folder} and {other.runs[0].folder} share no question "
            f"({', '.join(first.benchmarks())}; {', '.join(other.benchmarks())})",
            "Evaluate both on the same benchmark.",
        )
    return pairs


def _check_golds(name: str, shared: Sequence[str], runs: Sequence[ModelResult]) -> None:
    known = runs[0].benchmarks[name].golds
    for run in runs[1:]:
        golds = run.benchmarks[name].golds
        if different := [id_ for id_ in shared if golds[id_] != known[id_]]:
            id_ = different[0]
            raise CurioError(
                f"{name}, question {id_}: the gold is '{known[id_]}' in {runs[0].folder} "
                f"and '{golds[id_]}' in {run.folder}",
                "These are different questions under one id; evaluate both on the same file.",
            )
