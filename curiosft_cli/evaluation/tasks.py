"""The benchmarks that an evaluation samples: their questions, samples per question, and the k of Pass@k."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from curiosft_cli.data.benchmarks import BENCHMARKS, find_benchmark, load_benchmark
from curiosft_cli.data.records import Problem
from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.run.files import check_regular
from curiosft_cli.run.sections import Config


@dataclass(frozen=True)
class BenchmarkTask:
    """One benchmark with the settings of this evaluation.

    Attributes:
        name: the benchmark's name.
        problems: its questions.
        samples: completions per question.
        pass_k: the k of each Pass@k to report.
        contaminated: ids of questions that the training data has too; None where no report was given.
    """

    name: str
    problems: list[Problem]
    samples: int
    pass_k: tuple[int, ...]
    contaminated: frozenset[str] | None = None


def load_tasks(config: Config) -> list[BenchmarkTask]:
    """All benchmarks of the configuration; see `load_task`.

    Raises:
        CurioError: also from `check_names`.
    """
    check_names(config)
    return [load_task(config, name) for name in config.eval.benchmarks]


def check_names(config: Config) -> None:
    """Refuse a misspelt name: there is nothing to evaluate, or its file or its settings would never be read.

    Raises:
        CurioError: a benchmark to evaluate does not exist; `eval.data` or `eval.bench` names one that nothing
            evaluates; or `eval.bench` has the name of a shipped one.
    """
    for name in config.eval.bench.keys() & BENCHMARKS.keys():
        raise CurioError(
            f"eval.bench.{name}: '{name}' is a shipped benchmark, with a kind and columns of its own",
            "Give yours another name.",
        )
    evaluated = {*config.eval.benchmarks, *config.sft.eval_benchmarks, *config.rl.eval_benchmarks}
    for name in sorted(evaluated):
        find_benchmark(name, config.eval)
    used = {*evaluated, *config.check.benchmarks}
    for section in ("data", "bench"):
        for name in getattr(config.eval, section):
            if name not in BENCHMARKS and name not in used:
                raise CurioError(
                    f"eval.{section}.{name}: benchmark '{name}' does not exist, and eval.benchmarks does not have it",
                    nearest(name, {*BENCHMARKS, *used}),
                )


def load_task(config: Config, name: str, samples: int | None = None) -> BenchmarkTask:
    """Load one benchmark; `samples` comes before `eval.samples`, and that before the benchmark's own number.

    Raises:
        CurioError: the benchmark cannot be loaded, `eval.pass_k` holds a k above the number of samples, or the report
            of `eval.contamination` is about other questions.
    """
    problems = questions(config, name, config.eval.limit)
    count = samples or config.eval.samples or find_benchmark(name, config.eval).samples
    contaminated = None
    if config.eval.contamination is not None:
        known = None if config.eval.limit else [problem.id for problem in problems]
        contaminated = frozenset(contaminated_ids(Path(config.eval.contamination), name, known))
    return BenchmarkTask(name, problems, count, _pass_k(config, name, count), contaminated)


def questions(config: Config, name: str, limit: int | None) -> list[Problem]:
    """The first `limit` questions of a benchmark, from the file or hub data set that `[eval]` names.

    Raises:
        CurioError: the benchmark does not exist or cannot be loaded.
    """
    return load_benchmark(name, config.eval, limit=limit)


def prefill(config: Config) -> str:
    """The text that the prompts put at the start of the completion; "" for a chat endpoint, which takes none."""
    return "" if config.eval.endpoint == "chat" else config.model.prefill


def contaminated_ids(report: Path, benchmark: str, known: Collection[str] | None = None) -> set[str]:
    """Ids of the benchmark's questions that a report of `curiosft data check --json` lists as hits.

    Args:
        report: the file.
        benchmark: the benchmark's name.
        known: ids of all its questions; any other id in the report is an error. None accepts every id.

    Raises:
        CurioError: the report does not exist, or it did not compare the data with these questions.
    """
    check_regular(report)
    try:
        found = json.loads(report.read_text(encoding="utf-8"))["contamination"]
        benchmarks, hits = found["benchmarks"], found["hits"]
    except OSError as error:
        raise CurioError(f"cannot read {report}: {error.strerror}", "Check eval.contamination.") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CurioError(
            f"{report} is not a report of `curiosft data check --json` ({error})", "Check eval.contamination."
        ) from None
    if benchmark not in benchmarks:
        raise CurioError(
            f"{report} did not compare the data with {benchmark}, only with {', '.join(benchmarks) or 'nothing'}",
            f"Check the data again with check.benchmarks holding {benchmark}.",
        )
    ids = {str(hit["id"]) for hit in hits if hit["benchmark"] == benchmark}
    if known is not None and (strange := sorted(ids - set(known))):
        raise CurioError(
            f"{report} lists question {strange[0]} of {benchmark}, which this evaluation does not have",
            f"Give data check and eval the same eval.data.{benchmark}.",
        )
    return ids


def _pass_k(config: Config, name: str, samples: int) -> tuple[int, ...]:
    if config.eval.pass_k is None:
        powers = (2**power for power in range(samples.bit_length()))
        return tuple(sorted({k for k in powers if k <= samples} | {samples}))
    if too_large := [k for k in config.eval.pass_k if not 0 < k <= samples]:
        raise CurioError(
            f"eval.pass_k holds {too_large[0]}, but {name} has {samples} sample{'s' if samples > 1 else ''} a question",
            f"Set eval.samples to at least {max(too_large)}, or leave such k out.",
        )
    return tuple(config.eval.pass_k)
