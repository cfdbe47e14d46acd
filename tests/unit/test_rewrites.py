"""The checks on rewritten questions, against a labelled set: nothing spoiled in, little good refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curiosft_cli.tasks.rewrites import judge

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "rewrites.jsonl").read_text("utf-8").splitlines()]


def share_accepted(label: str) -> float:
    chosen = [case for case in CASES if case["label"] == label]
    assert len(chosen) > 50
    return sum(judge(case["original"], case["rewritten"]).outcome == "accepted" for case in chosen) / len(chosen)


def test_at_least_97_percent_of_the_spoiled_are_caught() -> None:
    assert share_accepted("spoiled") <= 0.03


def test_at_most_3_percent_of_the_good_are_refused() -> None:
    assert share_accepted("good") >= 0.97


@pytest.mark.parametrize(
    ("rewritten", "outcome"),
    [
        ("What is 12 + 30?", "accepted"),
        ("What is 12 + 31?", "kept_original"),
        ("What is 12 + 30? The answer is 42.", "kept_original"),
        ("", "kept_original"),
    ],
)
def test_a_changed_number_keeps_the_original(rewritten: str, outcome: str) -> None:
    assert judge("Hi all! (10 points) What is 12 + 30? Thanks!", rewritten).outcome == outcome
