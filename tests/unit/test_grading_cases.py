"""The shared grader cases, through a pool of one worker in any order, and the official grader's known differences."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from curiosft_cli.data.records import Problem
from curiosft_cli.grading.grade import GradeItem, grade
from curiosft_cli.grading.pool import GraderPool

CASES = Path(os.environ.get("CURIOSFT_GRADER_CASES", Path(__file__).parents[1] / "grader_cases.jsonl"))


def read_cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines() if line.strip()]


def item(case: dict[str, Any]) -> GradeItem:
    choices = case.get("choices") or [f"option {i}" for i in range(case.get("n_choices") or 0)]
    problem = Problem(case["id"], "?", case["gold"], kind=case["kind"], choices=tuple(choices))
    return GradeItem(case["response"], problem)


@pytest.mark.parametrize("order", ["given", "reversed", "shuffled"])
def test_golden_cases_in_any_order(order: str) -> None:
    cases = read_cases()
    assert cases
    if order == "reversed":
        cases.reverse()
    elif order == "shuffled":
        random.Random(0).shuffle(cases)
    with GraderPool(1) as pool:
        grades = list(pool.grade_in_order([item(case) for case in cases]))
    wrong = {}
    for case, graded in zip(cases, grades, strict=True):
        strict, answer = case.get("expected_strict"), case.get("expected_answer")
        agrees = graded.strict in (strict, graded.strict if strict is None else strict)
        agrees &= graded.answer in (answer, graded.answer if answer is None else answer)
        agrees &= case["kind"] != "choice" or graded.letter == case["expected"]
        if not agrees:
            wrong[case["id"]] = graded
    assert wrong == {}


OFFICIAL = [
    # completion, gold, the official score, the strict reward: they differ where the official graders err
    ("so \\boxed{14}\n</think>\nDone.", "14", 1.0, 0.0),
    ("x\n</think>\n\\boxed{1000000}", "1e6", 1.0, 1.0),
    ("x\n</think>\n\\boxed{10^{6}}", "1e6", 0.0, 1.0),
    ("x\n</think>\n\\boxed{6.3 \\times 10^{7}}", "6.3e7", 0.0, 1.0),
    ("x\n</think>\n\\boxed{37=38}", "38", 1.0, 0.0),
    ("x\n</think>\n\\boxed{\\ne 6}", "6", 1.0, 0.0),
    ("x\n</think>\n\\boxed{1101_3}", "1101_2", 1.0, 0.0),
    ("x\n</think>\n$\\boxed{18}$", "18", 1.0, 1.0),
    ("x\n</think>\n\\boxed{17}", "18", 0.0, 0.0),
    ("", "5", 0.0, 0.0),
]


@pytest.mark.parametrize(("completion", "gold", "official", "strict"), OFFICIAL)
def test_official_grader_differs_where_it_is_known_to(
    completion: str, gold: str, official: float, strict: float
) -> None:
    problem = Problem("p", "?", gold)
    assert grade(completion, problem, grader="official").answer == official
    assert grade(completion, problem).strict == strict


REWARDED = [
    # completion after the prefill, the authors' reward, ours: gold 5
    ("I add.\n</think>\nThe answer is $5$.", 1.0, 0.0),
    ("a</think>b</think>\\boxed{5}", 1.0, 0.0),
    ("so \\boxed{5}\n</think>\nDone.", 1.0, 0.0),
    ("</think>\\boxed{5}", 1.0, 0.0),
    ("a</think>\\boxed{5}", 1.0, 1.0),
    ("a</think>\\boxed{6}", 0.0, 0.0),
    ("the answer is \\boxed{5}", 0.0, 0.0),
    ("", 0.0, 0.0),
]


@pytest.mark.parametrize(("completion", "theirs", "ours"), REWARDED)
def test_the_authors_reward_needs_a_closed_thought_and_no_format(completion: str, theirs: float, ours: float) -> None:
    problem = Problem("p", "?", "5")
    graded = grade(completion, problem, grader="official-reward")
    assert (graded.strict, grade(completion, problem).strict) == (theirs, ours)
    assert (graded.reason == "correct") == bool(theirs)


def test_official_grader_reads_letters_as_maths() -> None:
    problem = Problem("p", "?", "C", kind="choice", choices=("w", "x", "y", "z"))
    assert grade("a</think>\\boxed{C) y}", problem).strict == 1.0
    assert grade("a</think>\\boxed{C) y}", problem, grader="official").answer == 0.0
    assert grade("a</think>\\boxed{12 = C}", problem).answer == 0.0
    assert grade("a</think>\\boxed{12 = C}", problem, grader="official").answer == 1.0
