"""Grades of a stream of any length, in order, with a bounded number of items in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from curiosft_cli.tasks.grader_pool import GraderPool
from curiosft_cli.tasks.grading import GradeItem
from curiosft_cli.tasks.records import Grade


def grade_in_order(pool: GraderPool, items: Iterable[GradeItem], ahead: int = 512) -> Iterator[Grade]:
    """Yield the grade of each item in the order of the items, reading at most `ahead` of them in advance.

    The pool must have nothing else to do. One slow item holds back what is yielded, not what is graded.
    """
    finished: dict[int, Grade] = {}
    submitted = yielded = 0
    for item in items:
        pool.submit(
            submitted,
            item.completion,
            item.problem,
            prefilled=item.prefilled,
            truncated=item.truncated,
            end_tokens=item.end_tokens,
            grader=item.grader,
        )
        submitted += 1
        _collect(pool, finished, wait=False)
        while yielded in finished or submitted - yielded >= ahead:
            if yielded in finished:
                yield finished.pop(yielded)
                yielded += 1
            else:
                _collect(pool, finished, wait=True)
    while yielded < submitted:
        if yielded in finished:
            yield finished.pop(yielded)
            yielded += 1
        else:
            _collect(pool, finished, wait=True)


def _collect(pool: GraderPool, finished: dict[int, Grade], *, wait: bool) -> None:
    for key, graded in pool.poll(pool.deadline_s if wait else 0.0):
        assert isinstance(key, int)  # our own submission numbers
        finished[key] = graded
