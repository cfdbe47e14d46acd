"""Everything that is wrong with a data set: first by its rows alone, then beside the benchmarks."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.data.benchmarks import load_benchmark
from curiosft_cli.data.files import BadRow, FileRow
from curiosft_cli.data.records import Problem
from curiosft_cli.data.sources import numbered_rows, to_problem
from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.log import Console
from curiosft_cli.tools.data.answer_checks import AnswerChecks
from curiosft_cli.tools.data.contamination import Contamination
from curiosft_cli.tools.data.report import CONTAMINATION, DataReport
from curiosft_cli.tools.data.row_checks import check_row, cleaned, roles
from curiosft_cli.tools.data.set_checks import Languages, Repeats, TokenCounts

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Config


def check_rows(source: str, config: Config, console: Console) -> DataReport:
    """Read every row of a source once and report what is wrong, whatever the benchmarks hold.

    Args:
        source: a data file, a hub id, or a generator.
        config: its `[check]`; also the model and the length limits.
        console: for progress.

    Raises:
        CurioError: the source does not exist or cannot be read.
    """
    started = time.monotonic()
    report = DataReport(source, limits=(config.data.max_prompt_length, config.sft.max_response_length))
    rows, total = numbered_rows(source), row_count(source)
    full = config.check.depth == "full"
    with ExitStack() as stack:
        lengths = _lengths(config, report, stack) if full else None
        workers = config.check.grader_workers if full else 1
        grades = stack.enter_context(AnswerChecks(report.findings, workers=workers, experts=full))
        repeats, languages = Repeats(), Languages()
        for number, problem in _readable(rows, source, report):
            found = dict(check_row(problem, config.check.max_question_characters))
            for name, detail in found.items():
                report.findings.add(name, number, detail)
            problem = cleaned_problem(problem)
            repeats.add(number, problem)
            languages.add(number, problem)
            report.sources[problem.source] += 1
            if problem.answer.strip() and "cut_gold" not in found:
                grades.add(number, problem)
            if lengths and "long_question" not in found:
                lengths.add(number, problem)
            console.progress(number, max(number + 1, total), "rows read")
        if lengths:
            lengths.finish()
        repeats.conclude(report, grades)
        grades.finish()
    languages.conclude(report)
    _conclude_missing(report)
    report.seconds = time.monotonic() - started
    report.peak_mib = (_peak_mib(resource.RUSAGE_SELF), _peak_mib(resource.RUSAGE_CHILDREN))
    console.close()
    return report


def compare_with_benchmarks(
    report: DataReport, config: Config, console: Console, *, all_benchmarks: bool = False
) -> None:
    """Read every row once more, and report questions that a benchmark of `check.benchmarks` has.

    It comes second: the benchmarks may have to be fetched from the hub.

    Args:
        report: of the rows; what is found is added.
        config: its `[check]`; also the benchmark files.
        console: for progress.
        all_benchmarks: a benchmark that is out of reach is an error; otherwise the report names it.

    Raises:
        CurioError: see `all_benchmarks`.
    """
    started = time.monotonic()
    contamination = _contamination(config, report, console)
    if all_benchmarks and (why := report.unchecked.get(CONTAMINATION)):
        raise CurioError(f"contamination cannot be checked: {why}", "", MISSING)
    if contamination:
        for number, row in numbered_rows(report.source):
            with suppress(BadRow):  # it was reported
                if not isinstance(row, BadRow):
                    contamination.add(number, cleaned(to_problem(row, str(number)).question))
            console.progress(number, max(number + 1, report.rows), "rows compared")
        _conclude_contamination(contamination, report)
    report.seconds += time.monotonic() - started
    report.peak_mib = (max(report.peak_mib[0], _peak_mib(resource.RUSAGE_SELF)), report.peak_mib[1])
    console.close()


def row_count(source: str) -> int:
    """Number of rows, for the progress line; 0 if it is unknown before reading."""
    path = Path(source)
    if path.suffix == ".jsonl" and path.is_file():
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    if path.suffix == ".parquet" and path.is_file():
        import pyarrow
        from pyarrow import parquet

        with suppress(pyarrow.ArrowException, OSError):  # the reader of the rows reports what is wrong with the file
            return parquet.read_metadata(path).num_rows
    return 0


def cleaned_problem(problem: Problem) -> Problem:
    """The problem without control characters and lone surrogates, which tokenizers and pipes refuse."""
    return replace(
        problem,
        question=cleaned(problem.question),
        answer=cleaned(problem.answer),
        response=cleaned(problem.response),
        choices=tuple(cleaned(list(problem.choices))),
    )


def _readable(
    rows: Iterable[tuple[int, FileRow | BadRow]], source: str, report: DataReport
) -> Iterator[tuple[int, Problem]]:
    """Yield the rows that can be read. Notes the others, and rows whose layout differs from the first."""
    stem = Path(source).stem
    for number, row in rows:
        report.rows += 1
        try:
            if isinstance(row, BadRow):
                raise row
            problem = to_problem(row, f"{stem}-{number}")
        except BadRow as error:
            report.findings.add("unreadable", number, str(error))
            continue
        found = roles(row)
        report.columns = found | report.columns
        if any(found.get(role, report.columns.get(role)) != report.columns.get(role) for role in ("question", "gold")):
            report.findings.add("columns", number, ", ".join(f"{role} {column}" for role, column in found.items()))
        if problem.answer.strip():
            report.has.add("gold")
        else:
            report.findings.add("no_gold", number)
        if problem.response.strip():
            report.has.add("response")
        else:
            report.findings.add("no_response", number)
        yield number, problem


def _lengths(config: Config, report: DataReport, stack: ExitStack) -> TokenCounts | None:
    from curiosft_cli.tools.data.token_lengths import LengthCounter

    try:
        counter = LengthCounter(config.model)
    except CurioError as error:
        report.unchecked["token lengths"] = f"{error} Or set check.depth=quick."
        return None
    stack.callback(counter.close)
    return TokenCounts(counter, report)


def _contamination(config: Config, report: DataReport, console: Console) -> Contamination | None:
    """The questions that must not be in the data. The report names benchmarks that are out of reach."""
    questions: list[tuple[str, str, str]] = []
    unreachable: dict[str, str] = {}
    for name in config.check.benchmarks:
        try:
            problems = load_benchmark(name, config.eval)
        except CurioError as error:
            if error.exit_code != MISSING:
                raise
            unreachable[name] = error.what
            continue
        report.benchmarks[name] = len(problems)
        questions += [(name, problem.id, problem.question) for problem in problems]
    if unreachable:
        names = ", ".join(unreachable)
        report.unchecked[CONTAMINATION] = (
            f"no questions of {names} ({next(iter(unreachable.values()))}). "
            "Give files (eval.data.NAME=FILE), or leave them out of check.benchmarks."
        )
        if config.check.benchmarks == type(config.check)().benchmarks:
            report.optional.add(CONTAMINATION)
    if not questions:
        return None
    console.say(f"comparing with {len(questions):,} questions of {len(report.benchmarks)} benchmarks")
    return Contamination(questions, ngram=config.check.ngram, similarity=config.check.similarity)


def _conclude_contamination(contamination: Contamination, report: DataReport) -> None:
    report.hits = contamination.hits()
    best = {hit.row: hit for hit in reversed(report.hits)}
    for row, hit in sorted(best.items()):
        report.findings.add("contaminated", row, f"{hit.benchmark} {hit.id} ({hit.kind}, {hit.overlap:.0%})")


def _conclude_missing(report: DataReport) -> None:
    """A column that no row has is reported once, not for each row."""
    for role, check in (("gold", "no_gold"), ("response", "no_response")):
        if role not in report.has:
            report.findings.rows.pop(check, None)
            report.findings.details.pop(check, None)


def _peak_mib(who: int) -> float:
    peak = resource.getrusage(who).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
