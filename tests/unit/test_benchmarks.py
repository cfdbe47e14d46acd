"""The benchmark table, and what its loader refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curiosft_cli.run.errors import CurioError
from curiosft_cli.tasks.benchmarks import BENCHMARKS, load_benchmark


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_papers_nine_and_their_samples() -> None:
    suites = {suite: {name for name, one in BENCHMARKS.items() if one.suite == suite} for suite in ("id", "ood")}
    assert suites["id"] == {"aime24", "aime25", "amc", "math500", "minerva", "olympiadbench"}
    assert suites["ood"] == {"gpqa_diamond", "arc_challenge", "mmlu_pro"}
    assert {name: one.samples for name, one in BENCHMARKS.items() if one.samples != 8} == {"mmlu_pro": 1}


def test_repeated_rows_count_once(tmp_path: Path) -> None:
    row = {"id": "a", "question": "1+1?", "answer": "2"}
    data = write(tmp_path / "a.jsonl", [row, {**row, "id": "b"}, {"id": "c", "question": "2+2?", "answer": "4"}])
    assert [problem.question for problem in load_benchmark("aime24", data=data)] == ["1+1?", "2+2?"]


def test_one_question_with_two_answers_is_refused(tmp_path: Path) -> None:
    rows = [{"id": "a", "question": "1+1?", "answer": "2"}, {"id": "b", "question": "1+1?", "answer": "3"}]
    with pytest.raises(CurioError):
        load_benchmark("aime24", data=write(tmp_path / "a.jsonl", rows))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(CurioError, match="math500"):
        load_benchmark("math50")


def test_the_built_in_one_needs_no_data() -> None:
    assert len(load_benchmark("arithmetic", limit=7)) == 7
