"""Golds of the six mathematics sets against themselves, against each other, and against near misses.

The rows are not part of the project: CURIOSFT_BENCHMARKS names the folder of their JSONL files.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.grading.normalise import normalise, squeeze
from curiosft_cli.grading.pool import GraderPool

SETS = ("aime24", "aime25", "amc", "math500", "minerva", "olympiadbench")
FOLDER = os.environ.get("CURIOSFT_BENCHMARKS")

pytestmark = pytest.mark.skipif(not FOLDER, reason="CURIOSFT_BENCHMARKS does not name a folder of benchmark rows")


@pytest.fixture(scope="module")
def golds() -> list[str]:
    lines = (line for name in SETS for line in (Path(FOLDER or "") / f"{name}.jsonl").read_text("utf-8").splitlines())
    return [json.loads(line)["answer"] for line in lines]


@pytest.fixture(scope="module")
def pool() -> Iterator[GraderPool]:
    with GraderPool(2) as shared:
        yield shared


def grade_pairs(pool: GraderPool, pairs: list[tuple[str, str]]) -> list[Grade]:
    return list(
        pool.grade_in_order(
            [
                GradeItem(f"a</think>\\boxed{{{answer}}}", Problem(str(n), "?", gold))
                for n, (gold, answer) in enumerate(pairs)
            ]
        )
    )


def plain(gold: str) -> str:
    return re.sub(r"\^\{?\\circ\}?|\\%|\\text\{[^{}]*\}", "", squeeze(normalise(gold)))


def test_every_gold_equals_itself(pool: GraderPool, golds: list[str]) -> None:
    assert len(golds) == 1590
    grades = grade_pairs(pool, [(gold, gold) for gold in golds])
    assert [gold for gold, graded in zip(golds, grades, strict=True) if graded.strict != 1.0] == []


def respelt(gold: str) -> str:
    """Normalised, but a point such as (12,102) keeps its comma."""
    return normalise(gold, thousands=not re.search(r"\(\d+,", gold))


RESTYLED = {
    "display fractions": lambda gold: gold.replace("\\frac", "\\dfrac"),
    "in braces": lambda gold: "{" + respelt(gold) + "}",
    "assigned": lambda gold: gold if re.search(r"=|\\in |ge", gold) else f"x = {respelt(gold)}",
    "spaced lists": lambda gold: re.sub(r",(?=\S)", ", ", respelt(gold)),
}


@pytest.mark.parametrize("style", RESTYLED)
def test_every_gold_equals_itself_in_another_style(style: str, pool: GraderPool, golds: list[str]) -> None:
    pairs = [(gold, RESTYLED[style](gold)) for gold in golds]
    grades = grade_pairs(pool, pairs)
    assert [pair for pair, graded in zip(pairs, grades, strict=True) if graded.strict != 1.0] == []


def test_no_gold_equals_another(pool: GraderPool, golds: list[str]) -> None:
    other = list(golds)
    random.Random(0).shuffle(other)
    pairs = [pair for pair in zip(golds, other, strict=True) if plain(pair[0]) != plain(pair[1])]
    grades = grade_pairs(pool, pairs)
    assert len(pairs) > 1400
    assert [pair for pair, graded in zip(pairs, grades, strict=True) if graded.answer] == []


def test_no_gold_equals_itself_with_another_digit(pool: GraderPool, golds: list[str]) -> None:
    rng = random.Random(0)
    pairs = []
    for gold in golds:
        digits = [match.start() for match in re.finditer(r"\d", gold)]
        if digits:
            place = rng.choice(digits)
            digit = (int(gold[place]) + rng.randint(1, 9)) % 10
            pairs.append((gold, f"{gold[:place]}{digit}{gold[place + 1 :]}"))
    grades = grade_pairs(pool, pairs)
    assert [pair for pair, graded in zip(pairs, grades, strict=True) if graded.answer] == []
