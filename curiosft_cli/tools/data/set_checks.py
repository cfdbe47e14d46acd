"""Checks over the whole data set: repeated questions, languages, token lengths. Texts are not kept."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from concurrent.futures import Future
from typing import TYPE_CHECKING

from curiosft_cli.data.records import Problem
from curiosft_cli.tools.data.answer_checks import AnswerChecks
from curiosft_cli.tools.data.language import UNKNOWN, language
from curiosft_cli.tools.data.report import DataReport
from curiosft_cli.tools.data.row_checks import question_key

if TYPE_CHECKING:
    from curiosft_cli.tools.data.token_lengths import LengthCounter, Lengths


class Repeats:
    """Finds questions and ids that occur more than once."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[int, str]] = {}
        self._ids: dict[str, int] = {}
        self._again: list[tuple[int, str, int, str]] = []
        self._same_id: list[tuple[int, int, str]] = []

    def add(self, number: int, problem: Problem) -> None:
        """Add one row."""
        first, gold = self._first.setdefault(question_key(problem), (number, problem.answer))
        if first != number:
            self._again.append((first, gold, number, problem.answer))
        if (known := self._ids.setdefault(problem.id, number)) != number:
            self._same_id.append((number, known, problem.id))

    def conclude(self, report: DataReport, grades: AnswerChecks) -> None:
        """Report repetitions, and conflicts: the same question with golds of different value."""
        findings = report.findings
        same = grades.same(pair for pair in self._again if pair[1].strip() and pair[3].strip())
        conflicting: set[int] = set()
        for first, gold, row, other in self._again:
            if same.get((first, row), True):
                findings.add("repeated", row, f"repeats row {first}")
                report.repeats.append((first, row))
                continue
            if first not in conflicting:
                findings.add("conflict", first, f"gold {gold[:60]!r}")
            conflicting.add(first)
            findings.add("conflict", row, f"gold {other[:60]!r}, but {gold[:60]!r} in row {first}")
        for row, known, name in self._same_id:
            findings.add("repeated_id", row, f"{name[:40]!r}, as row {known}")


class Languages:
    """The language of each question."""

    def __init__(self) -> None:
        self._rows = array("Q")
        self._languages: list[str] = []

    def add(self, number: int, problem: Problem) -> None:
        """Add one question."""
        self._rows.append(number)
        self._languages.append(sys.intern(language(problem.question)))

    def conclude(self, report: DataReport) -> None:
        """Count the languages, and report rows that are not in the most frequent one."""
        report.languages = Counter(self._languages)
        known = [(count, name) for name, count in report.languages.items() if name != UNKNOWN]
        if not known:
            return
        _, most = max(known)
        for number, found in zip(self._rows, self._languages, strict=True):
            if found not in (most, UNKNOWN):
                report.findings.add("language", number, found)


class TokenCounts:
    """Counts tokens in batches, and reports the lengths."""

    def __init__(self, counter: LengthCounter, report: DataReport, batch_rows: int = 64, ahead: int = 3) -> None:
        self._counter, self._report, self._batch_rows, self._ahead = counter, report, batch_rows, ahead
        self._batch: list[tuple[int, Problem]] = []
        self._submitted: list[tuple[list[int], Future[Lengths]]] = []

    def add(self, number: int, problem: Problem) -> None:
        """Add one row; waits while too many batches are being counted."""
        self._batch.append((number, problem))
        if len(self._batch) >= self._batch_rows:
            self._send()

    def finish(self) -> None:
        """Wait until all rows are counted."""
        self._send()
        while self._submitted:
            self._take()

    def _send(self) -> None:
        if self._batch:
            future = self._counter.submit([problem for _, problem in self._batch])
            self._submitted.append(([number for number, _ in self._batch], future))
            self._batch = []
        while len(self._submitted) > self._ahead:
            self._take()

    def _take(self) -> None:
        numbers, future = self._submitted.pop(0)
        limits = self._report.limits
        for number, (prompt, response) in zip(numbers, future.result(), strict=True):
            self._report.prompt_tokens.append(prompt)
            if prompt > limits[0]:
                self._report.findings.add("long_prompt", number, f"{prompt:,} tokens")
            if response:
                self._report.response_tokens.append(response)
            if response > limits[1]:
                self._report.findings.add("long_response", number, f"{response:,} tokens")
