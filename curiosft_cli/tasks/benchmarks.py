"""The benchmarks as data: where each comes from, how it is answered, how often it is sampled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.tasks.arithmetic import generate
from curiosft_cli.tasks.records import AnswerKind, Problem
from curiosft_cli.tasks.sources import read_rows, to_problem

ARITHMETIC_ROWS = 200


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        kind: which grader reads its answers.
        samples: completions per question (Section 5).
        suite: "id", "ood", or "none" when it is outside the paper's averages.
    """

    kind: AnswerKind
    samples: int
    suite: Literal["id", "ood", "none"]


BENCHMARKS: dict[str, Benchmark] = {
    "aime24": Benchmark("math", 8, "id"),
    "aime25": Benchmark("math", 8, "id"),
    "amc": Benchmark("math", 8, "id"),
    "amc23": Benchmark("math", 8, "none"),
    "math500": Benchmark("math", 8, "id"),
    "minerva": Benchmark("math", 8, "id"),
    "olympiadbench": Benchmark("math", 8, "id"),
    "gpqa_diamond": Benchmark("choice", 8, "ood"),
    "arc_challenge": Benchmark("choice", 8, "ood"),
    "mmlu_pro": Benchmark("choice", 1, "ood"),
    "arithmetic": Benchmark("math", 8, "none"),
}


def load_benchmark(name: str, *, data: str | None = None, limit: int | None = None) -> list[Problem]:
    """The questions of a benchmark, repeated rows taken once.

    Args:
        name: a key of `BENCHMARKS`.
        data: a local JSONL, JSON or parquet file in place of the hub.
        limit: first questions only.

    Raises:
        CurioError: the benchmark does not exist, has no data here, or gives one question two answers.
    """
    if name not in BENCHMARKS:
        raise CurioError(f"benchmark '{name}' does not exist", nearest(name, BENCHMARKS))
    if data is not None:
        problems = [to_problem(row, f"{name}-{number}") for number, row in read_rows(Path(data))]
    elif name == "arithmetic":
        problems = generate("test", ARITHMETIC_ROWS)
    else:
        raise CurioError(f"benchmark '{name}' has no built-in data", f"Give a file: eval.data.{name}=FILE.")
    return unique(problems, name)[:limit]


def unique(problems: Iterable[Problem], name: str) -> list[Problem]:
    """Drop repetitions of a question.

    Raises:
        CurioError: the same question has two different answers.
    """
    first: dict[tuple[str, tuple[str, ...]], Problem] = {}
    for problem in problems:
        known = first.setdefault((problem.question.strip(), problem.choices), problem)
        if known.answer != problem.answer:
            raise CurioError(
                f"{name}: question {problem.id} has the answers '{known.answer}' and '{problem.answer}'",
                "Mend the data: one question has one answer.",
            )
    return list(first.values())
