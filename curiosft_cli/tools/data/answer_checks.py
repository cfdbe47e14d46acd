"""Checks of golds and expert answers: graded in other processes while the rows are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from types import TracebackType

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.data.response_format import answer_region, cut_at_end_token
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.grading.match import is_within_limits
from curiosft_cli.grading.normalise import normalise
from curiosft_cli.grading.parse import plain_number, words
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.tools.data.row_checks import Findings
from curiosft_cli.tools.data.simple_latex import is_simple


class AnswerChecks:
    """Finds golds that cannot be parsed, and expert answers that differ from their gold.

    Args:
        findings: gets the findings.
        workers: number of processes.
        experts: grade the expert answers too; otherwise only the golds, each different one once.
        ahead: most items that wait for the workers; it limits the memory.
    """

    def __init__(self, findings: Findings, *, workers: int, experts: bool, ahead: int = 256) -> None:
        self._findings, self._experts, self._ahead = findings, experts, ahead
        self._pool = GraderPool(workers)
        self._golds: dict[int, str] = {}
        self._same_gold: dict[str, list[int] | Grade] = {}
        self._pairs: dict[tuple[int, int], float] = defaultdict(float)
        self.done = 0

    def add(self, row: int, problem: Problem) -> None:
        """Check one row that has a gold."""
        if self._experts and problem.response.strip():
            self._golds[row] = problem.answer
            self._submit(("expert", row), answer_region(cut_at_end_token(problem.response)), problem)
        elif problem.kind == "math" and not _is_plain(problem.answer):
            self._add_gold(row, problem)

    def same(self, pairs: Iterable[tuple[int, str, int, str]]) -> dict[tuple[int, int], bool]:
        """For each pair (row, gold, row, gold): whether the golds are equal. Each is graded against the other."""
        for row, gold, other_row, other in pairs:
            self._pairs[row, other_row] = float(normalise(gold) == normalise(other))
            if not self._pairs[row, other_row]:
                self._submit(("pair", row, other_row), rf"\boxed{{{other}}}", Problem("", "", gold))
                self._submit(("pair", row, other_row), rf"\boxed{{{gold}}}", Problem("", "", other))
        self.finish()
        return {pair: bool(score) for pair, score in self._pairs.items()}

    def finish(self) -> None:
        """Wait until everything is graded."""
        while self._pool.pending:
            self._collect(1.0)
        self._collect(0.0)

    def __enter__(self) -> AnswerChecks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    def _add_gold(self, row: int, problem: Problem) -> None:
        known = self._same_gold.get(problem.answer)
        if isinstance(known, Grade):
            self._note_gold(row, problem.answer, known)
        elif known is not None:
            known.append(row)
        else:
            self._same_gold[problem.answer] = [row]
            self._submit(("gold", problem.answer), "", problem)

    def _submit(self, key: tuple[object, ...], completion: str, problem: Problem) -> None:
        light = Problem(problem.id, "", problem.answer, kind=problem.kind, choices=problem.choices)
        self._pool.submit(key, GradeItem(completion, light))
        self._collect(0.0)
        while self._pool.pending > self._ahead:
            self._collect(1.0)

    def _collect(self, timeout_s: float) -> None:
        for key, grade in self._pool.poll(timeout_s):
            assert isinstance(key, tuple)
            self.done += 1
            if key[0] == "expert":
                self._note_expert(key[1], self._golds.pop(key[1]), grade)
            elif key[0] == "pair":
                pair = (key[1], key[2])
                self._pairs[pair] = max(self._pairs[pair], grade.answer or 0.0)
            else:
                waiting = self._same_gold[key[1]]
                self._same_gold[key[1]] = grade
                for row in waiting if isinstance(waiting, list) else ():
                    self._note_gold(row, key[1], grade)

    def _note_gold(self, row: int, gold: str, grade: Grade) -> None:
        if grade.reason == "ungradable_gold":
            self._findings.add("ungradable", row, repr(gold[:60]))

    def _note_expert(self, row: int, gold: str, grade: Grade) -> None:
        answer = repr((grade.extracted or "")[:60])
        if grade.reason == "ungradable_gold":
            self._note_gold(row, gold, grade)
        elif grade.status != "ok":
            self._findings.add("ungraded", row, f"{grade.status}: says {answer}, gold {gold[:60]!r}")
        elif not grade.answer and grade.extracted is not None:
            self._findings.add("wrong_expert", row, f"says {answer}, gold {gold[:60]!r}")


def _is_plain(gold: str) -> bool:
    """Whether a gold can certainly be graded. Most golds can, and then no worker is needed."""
    clean = normalise(gold)
    if not is_within_limits(clean):
        return False
    return plain_number(clean) is not None or words(clean) is not None or is_simple(clean)
