"""Tables of short cases: (gold, content of the box, right or wrong), (response, both scores), and (completion,
letter)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curiosft_cli.data.records import Problem
from curiosft_cli.grading.grade import GradeItem, grade
from curiosft_cli.grading.pool import GraderPool

TABLES = Path(__file__).parents[1]


def table(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TABLES / name).read_text(encoding="utf-8").splitlines()]


def test_every_answer_gets_its_verdict() -> None:
    cases = table("free_form_cases.jsonl")
    assert len(cases) > 300 and {case["right"] for case in cases} == {0, 1}
    items = [GradeItem(f"t</think>\\boxed{{{case['answer']}}}", Problem("p", "?", case["gold"])) for case in cases]
    with GraderPool(1) as pool:
        grades = list(pool.grade_in_order(items))
    assert [case for case, grade in zip(cases, grades, strict=True) if grade.strict != case["right"]] == []


@pytest.mark.parametrize("case", table("response_cases.jsonl"), ids=lambda case: repr(case["response"])[:50])
def test_every_response_gets_both_scores(case: dict[str, Any]) -> None:
    graded = grade(case["response"], Problem("p", "?", case["gold"]))
    assert (graded.strict, graded.answer) == (case["strict"], case["answer"])


@pytest.mark.parametrize("case", table("choice_cases.jsonl"), ids=lambda case: repr(case["completion"])[:50])
def test_every_completion_names_its_letter(case: dict[str, Any]) -> None:
    choices = tuple(case["choices"] or [""] * case["n_choices"])
    assert grade(case["completion"], Problem("p", "?", "A", kind="choice", choices=choices)).letter == case["letter"]
