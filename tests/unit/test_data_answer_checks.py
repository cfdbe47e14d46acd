"""Golds and experts of a data set, graded beside the reader; and what a copy leaves out when findings meet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from curiosft_cli.data.records import Problem
from curiosft_cli.tools.data.answer_checks import AnswerChecks
from curiosft_cli.tools.data.report import DataReport
from curiosft_cli.tools.data.row_checks import Findings


def problem(answer: str, said: str | None = None) -> Problem:
    response = "" if said is None else f"Hm, first \\boxed{{0}}.\n</think>\nIt is $\\boxed{{{said}}}$."
    return Problem("", "What?", answer, response=response)


@pytest.fixture(scope="module")
def grades() -> Iterator[AnswerChecks]:
    with AnswerChecks(Findings(), workers=1, experts=True) as pool:
        yield pool


def test_golds_of_one_value_are_no_conflict(grades: AnswerChecks) -> None:
    pairs = [(1, "0.5", 2, r"\frac{1}{2}"), (1, "0.5", 3, "0.6"), (4, "$7$", 5, "7"), (6, "x+1", 7, "1+x")]
    assert grades.same(pairs) == {(1, 2): True, (1, 3): False, (4, 5): True, (6, 7): True}


def test_experts_are_graded_on_their_solution(grades: AnswerChecks) -> None:
    for row, (answer, said) in enumerate([("1/2", "0.5"), ("5", "6"), ("0", "1"), ("$$", "1")], start=1):
        grades.add(row, problem(answer, said))
    grades.finish()
    rows = {name: sorted(found) for name, found in grades._findings.rows.items()}
    assert rows == {"wrong_expert": [2, 3], "ungradable": [4]}


def test_a_gold_is_looked_at_once_and_told_for_every_row() -> None:
    findings = Findings()
    with AnswerChecks(findings, workers=1, experts=False) as pool:
        for row, answer in enumerate(["$$", "12", "$$", "$ $", r"\lfloor x \rfloor", "$$"], start=1):
            pool.add(row, problem(answer, "no matter"))
        pool.finish()
        assert pool.done == 3  # "$$", "$ $" and the floor; 12 needs no worker
    assert sorted(findings.rows["ungradable"]) == [1, 3, 4, 6]


def repeating(*pairs: tuple[int, int], **rows: list[int]) -> DataReport:
    report = DataReport("x", rows=9, repeats=list(pairs))
    for check, numbers in rows.items():
        for number in numbers:
            report.findings.add(check, number)
    return report


def test_the_first_good_one_of_repeated_rows_stays() -> None:
    plain = repeating((1, 4), (1, 6), repeated=[4, 6])
    assert plain.to_drop(broken=True, contaminated=False) == {4, 6}
    first_is_broken = repeating((1, 4), (1, 6), (1, 7), repeated=[4, 6, 7], think=[1, 4])
    assert first_is_broken.to_drop(broken=True, contaminated=False) == {1, 4, 7}


def test_what_is_asked_for_is_dropped() -> None:
    report = repeating((1, 4), repeated=[4], contaminated=[1, 4, 5], characters=[6], long_response=[7])
    assert report.to_drop(broken=False, contaminated=True) == {1, 4, 5}
    assert report.to_drop(broken=True, contaminated=False) == {4}
    assert report.to_drop(broken=True, contaminated=True) == {1, 4, 5}


def test_exit_codes() -> None:
    assert repeating(language=[1]).exit_code() == 0
    assert repeating(think=[1]).exit_code() == 2
    assert repeating(think=[1]).exit_code(frozenset({1})) == 0
    assert repeating(think=[1, 2]).exit_code(frozenset({1})) == 2
    assert DataReport("x").exit_code() == 2
    unseen = repeating(language=[1])
    unseen.unchecked["token lengths"] = "no tokenizer"
    assert unseen.exit_code() == 3
