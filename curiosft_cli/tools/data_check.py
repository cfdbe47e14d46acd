"""`curiosft data check`: one pass over a data set, everything that is wrong with it, and a repaired copy on request."""

from __future__ import annotations

import resource
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.run.errors import BAD_INPUT, MISSING, CurioError
from curiosft_cli.run.log import Console
from curiosft_cli.tasks.benchmarks import load_benchmark
from curiosft_cli.tasks.contamination import Contamination, Hit
from curiosft_cli.tasks.datachecks import Findings, layout, look, mended, question_key, roles
from curiosft_cli.tasks.datafiles import BadRow, Row
from curiosft_cli.tasks.language import UNKNOWN, language
from curiosft_cli.tasks.records import Problem
from curiosft_cli.tasks.sources import numbered_rows, to_problem
from curiosft_cli.tools.data_grades import DataGrades

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Config
    from curiosft_cli.train.lengths import LengthCounter, Lengths

CONTAMINATION = "contamination"


@dataclass
class DataReport:
    """What a check saw.

    Attributes:
        source: what was checked.
        columns: role to column, as in the first readable row.
        has: roles that at least one row fills.
        prompt_tokens: of each row, none where they were not counted.
        response_tokens: of each row that has a response.
        limits: the longest prompt and response in tokens.
        benchmarks: questions compared with, by benchmark.
        unchecked: what could not be looked at, and why.
        peak_mib: largest memory of this process, and of the largest child.
    """

    source: str
    rows: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    has: set[str] = field(default_factory=set)
    findings: Findings = field(default_factory=Findings)
    prompt_tokens: array[int] = field(default_factory=lambda: array("L"))
    response_tokens: array[int] = field(default_factory=lambda: array("L"))
    limits: tuple[int, int] = (0, 0)
    languages: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    hits: list[Hit] = field(default_factory=list)
    benchmarks: dict[str, int] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    peak_mib: tuple[float, float] = (0.0, 0.0)

    @property
    def layout(self) -> str:
        """The layout's name."""
        return layout(self.columns)

    def exit_code(self, repaired: frozenset[int] | None = None) -> int:
        """0 clean, 2 problems, 3 something could not be looked at.

        Args:
            repaired: rows that the copy just written leaves out or mends; their problems are solved.
        """
        left = [set(self.findings.rows[name]) - (repaired or frozenset()) for name in self.findings.problems()]
        if any(left) or not self.rows:
            return BAD_INPUT
        return MISSING if self.unchecked else 0


def check_data(source: str, config: Config, console: Console) -> DataReport:
    """Look at every row of a source once; see `DataReport`.

    Raises:
        CurioError: the source does not exist or cannot be read as a whole.
    """
    started = time.monotonic()
    report = DataReport(source, limits=(config.data.max_prompt_length, config.sft.max_response_length))
    rows, total = numbered_rows(source), row_count(source)
    full = config.check.depth == "full"
    contamination = _contamination(config, report, console) if full else None
    with ExitStack() as stack:
        lengths = _lengths(config, report, stack) if full else None
        workers = config.check.grader_workers if full else 1
        grades = stack.enter_context(DataGrades(report.findings, workers=workers, experts=full))
        repeats, tongues = Repeats(), Tongues()
        for number, problem in _readable(rows, source, report):
            for name, seen in look(problem, config.check.max_question_characters):
                report.findings.add(name, number, seen)
            problem = mended_problem(problem)
            repeats.add(number, problem)
            tongues.add(number, problem)
            report.sources[problem.source] += 1
            if problem.answer.strip():
                grades.add(number, problem)
            if contamination:
                contamination.add(number, problem.question)
            if lengths:
                lengths.add(number, problem)
            console.progress(number, max(number + 1, total), "rows read")
        if lengths:
            lengths.finish()
        repeats.conclude(report.findings, grades)
        grades.finish()
    tongues.conclude(report)
    if contamination:
        _conclude_contamination(contamination, report)
    _conclude_missing(report)
    report.seconds = time.monotonic() - started
    report.peak_mib = (_peak_mib(resource.RUSAGE_SELF), _peak_mib(resource.RUSAGE_CHILDREN))
    console.close()
    return report


def row_count(source: str) -> int:
    """Rows to expect, for the progress line: 0 where only reading would tell."""
    path = Path(source)
    if path.suffix == ".jsonl" and path.is_file():
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    if path.suffix == ".parquet" and path.is_file():
        import pyarrow
        from pyarrow import parquet

        with suppress(pyarrow.ArrowException, OSError):  # the reader of the rows says what is wrong with the file
            return parquet.read_metadata(path).num_rows
    return 0


def mended_problem(problem: Problem) -> Problem:
    """The problem without the characters that no tokenizer or pipe can take."""
    return replace(
        problem,
        question=mended(problem.question),
        answer=mended(problem.answer),
        response=mended(problem.response),
        choices=tuple(mended(list(problem.choices))),
    )


def _readable(
    rows: Iterable[tuple[int, Row | BadRow]], source: str, report: DataReport
) -> Iterator[tuple[int, Problem]]:
    """The rows that are problems; the others, and rows of another layout than the first, are noted."""
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
        report.columns = report.columns or found
        if any(found.get(role) != report.columns.get(role) for role in ("question", "gold")):
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


class Repeats:
    """Questions and ids that occur more than once."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[int, str]] = {}
        self._ids: dict[str, int] = {}
        self._again: list[tuple[int, str, int, str]] = []
        self._same_id: list[tuple[int, int, str]] = []

    def add(self, number: int, problem: Problem) -> None:
        """Look at one row."""
        first, gold = self._first.setdefault(question_key(problem), (number, problem.answer))
        if first != number:
            self._again.append((first, gold, number, problem.answer))
        if (known := self._ids.setdefault(problem.id, number)) != number:
            self._same_id.append((number, known, problem.id))

    def conclude(self, findings: Findings, grades: DataGrades) -> None:
        """Note repetitions, and conflicts where the golds differ also in value."""
        same = grades.same(pair for pair in self._again if pair[1].strip() and pair[3].strip())
        conflicting: set[int] = set()
        for first, gold, row, other in self._again:
            if same.get((first, row), True):
                findings.add("repeated", row, f"repeats row {first}")
                continue
            if first not in conflicting:
                findings.add("conflict", first, f"gold {gold[:60]!r}")
            conflicting.add(first)
            findings.add("conflict", row, f"gold {other[:60]!r}, but {gold[:60]!r} in row {first}")
        for row, known, name in self._same_id:
            findings.add("repeated_id", row, f"{name[:40]!r}, as row {known}")


class Tongues:
    """The language of each question, four bytes a row."""

    def __init__(self) -> None:
        self._rows = array("Q")
        self._spoken: list[str] = []

    def add(self, number: int, problem: Problem) -> None:
        """Look at one question."""
        self._rows.append(number)
        self._spoken.append(sys.intern(language(problem.question)))

    def conclude(self, report: DataReport) -> None:
        """Count the languages and note the rows in another one than most."""
        report.languages = Counter(self._spoken)
        told = [(count, name) for name, count in report.languages.items() if name != UNKNOWN]
        if not told:
            return
        _, most = max(told)
        for number, spoken in zip(self._rows, self._spoken, strict=True):
            if spoken not in (most, UNKNOWN):
                report.findings.add("language", number, spoken)


class TokenCounts:
    """Hands problems to the token counter in batches and files what comes back."""

    def __init__(self, counter: LengthCounter, report: DataReport, batch_rows: int = 64, ahead: int = 3) -> None:
        self._counter, self._report, self._batch_rows, self._ahead = counter, report, batch_rows, ahead
        self._batch: list[tuple[int, Problem]] = []
        self._under_way: list[tuple[list[int], Future[Lengths]]] = []

    def add(self, number: int, problem: Problem) -> None:
        """Queue one row; waits while too many are under way."""
        self._batch.append((number, problem))
        if len(self._batch) >= self._batch_rows:
            self._send()

    def finish(self) -> None:
        """Wait for all."""
        self._send()
        while self._under_way:
            self._take()

    def _send(self) -> None:
        if self._batch:
            future = self._counter.submit([problem for _, problem in self._batch])
            self._under_way.append(([number for number, _ in self._batch], future))
            self._batch = []
        while len(self._under_way) > self._ahead:
            self._take()

    def _take(self) -> None:
        numbers, future = self._under_way.pop(0)
        limits = self._report.limits
        for number, (prompt, response) in zip(numbers, future.result(), strict=True):
            self._report.prompt_tokens.append(prompt)
            if prompt > limits[0]:
                self._report.findings.add("long_prompt", number, f"{prompt:,} tokens")
            if response:
                self._report.response_tokens.append(response)
            if response > limits[1]:
                self._report.findings.add("long_response", number, f"{response:,} tokens")


def _lengths(config: Config, report: DataReport, stack: ExitStack) -> TokenCounts | None:
    from curiosft_cli.train.lengths import LengthCounter

    try:
        counter = LengthCounter(config.model)
    except CurioError as error:
        report.unchecked["token lengths"] = f"{error} Or set check.depth=quick."
        return None
    stack.callback(counter.close)
    return TokenCounts(counter, report)


def _contamination(config: Config, report: DataReport, console: Console) -> Contamination | None:
    """What must not be in the data; a benchmark that is out of reach is told, not passed over."""
    questions: list[tuple[str, str, str]] = []
    unreached: dict[str, str] = {}
    for name in config.check.benchmarks:
        try:
            problems = load_benchmark(name, data=config.eval.data.get(name))
        except CurioError as error:
            if error.exit_code != MISSING:
                raise
            unreached[name] = error.what
            continue
        report.benchmarks[name] = len(problems)
        questions += [(name, problem.id, problem.question) for problem in problems]
    if unreached:
        names = ", ".join(unreached)
        report.unchecked[CONTAMINATION] = (
            f"no questions of {names} ({next(iter(unreached.values()))}). "
            "Give files (eval.data.NAME=FILE), or name in check.benchmarks those that count."
        )
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
    """A column that no row has is told once, not once for each row."""
    for role, check in (("gold", "no_gold"), ("response", "no_response")):
        if role not in report.has:
            report.findings.rows.pop(check, None)
            report.findings.seen.pop(check, None)


def _peak_mib(who: int) -> float:
    peak = resource.getrusage(who).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
