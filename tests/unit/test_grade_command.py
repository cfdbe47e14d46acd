"""`curiosft grade`: rows in, the same rows with their grades out; bad rows refused before anything is written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from curiosft_cli.data.files import BadRow
from curiosft_cli.data.records import Problem
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.tools.saved_responses import to_item

RIGHT = {"id": "a", "response": "x</think>\\boxed{4}", "gold": "4", "kind": "math"}
ROWS: list[dict[str, Any]] = [
    RIGHT,
    {**RIGHT, "response": "x</think>\\boxed{5}", "note": "kept"},
    {"id": "b", "response": "The answer is $0.5$", "gold": "\\frac{1}{2}"},
    {"id": "c", "response": "y</think>\\boxed{C) it}", "gold": "C", "kind": "choice", "n_choices": 4},
    {"id": "d", "response": "<think>y</think>\\boxed{it}", "gold": "B", "choices": ["is", "it"], "prefilled": False},
    {"id": "e", "response": "z</think>\\boxed{1}", "gold": "", "kind": "math"},
    {"id": "f", "response": "z", "gold": 7, "truncated": True},
    {"id": "g", "response": "z\ud800</think>\\boxed{8,\u200b000}", "gold": 8000},
]
SCORES = [(1, 1), (0, 0), (0, 1), (1, 1), (1, 1), (None, None), (0, 0), (1, 1)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "curiosft_cli.cli", "grade", *map(str, arguments), "--workers", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_come_out_with_their_grades_and_a_summary(tmp_path: Path) -> None:
    out = tmp_path / "graded.jsonl"
    done = run(write(tmp_path / "rows.jsonl", ROWS), "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    graded = lines(out)
    assert [(row["strict"], row["answer"]) for row in graded] == SCORES
    assert [{key: row[key] for key in given} for row, given in zip(graded, ROWS, strict=True)] == ROWS
    assert [row["letter"] for row in graded[3:5]] == ["C", "B"]
    assert graded[6]["reason"] == "truncated" and graded[5]["reason"] == "ungradable_gold"
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["questions"], summary["ungradable_rows"]) == (8, 6, 1)
    # Question means: a 1/2, b 1, c 1, d 1, f 0, g 1.
    assert summary["answer"] == pytest.approx(100 * 4.5 / 6)
    assert summary["strict"] == pytest.approx(100 * 3.5 / 6)
    assert summary["format"] == pytest.approx(100 * 6 / 8)
    assert summary["grader"]["name"] == "curiosft" and len(summary["grader"]["code"]) == 12
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_without_out_the_rows_are_printed(tmp_path: Path) -> None:
    done = run(write(tmp_path / "rows.jsonl", ROWS[:2]))
    assert [json.loads(line)["answer"] for line in done.stdout.splitlines()] == [1.0, 0.0]
    assert "answer    50.0 %" in done.stderr


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [{**RIGHT, "response": "x" * 5000 + "</think>\\boxed{4}"}] * 200)
    command = f"{sys.executable} -m curiosft_cli.cli grade {file} --workers 1 | head -1 | wc -l"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "1")
    assert "Traceback" not in done.stderr and "Broken pipe" not in done.stderr


def test_cross_check_lists_what_the_others_say(tmp_path: Path) -> None:
    rows = [
        {"id": "both", "response": "a</think>\\boxed{1/2}", "gold": "1/2"},
        {"id": "text", "response": "a</think>\\boxed{0.5}", "gold": "1/2"},
        {"id": "sides", "response": "a</think>\\boxed{37=38}", "gold": "38"},
    ]
    done = run(write(tmp_path / "rows.jsonl", rows), "--cross-check", "--json")
    check = json.loads(done.stdout)["cross_check"]
    assert check["counts"] == {"math-verify accepts": 1, "rows": 2, "string refuses": 1}
    assert check["scores"] == {"curiosft": pytest.approx(200 / 3), "math-verify": 100, "string": pytest.approx(100 / 3)}
    assert check["effect"]["math-verify"] == pytest.approx(100 / 3)
    assert [row["id"] for row in check["disagreements"]] == ["text", "sides"]


def test_the_official_grader_can_be_asked(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [{"id": "a", "response": "\\boxed{14}\n</think>\nDone.", "gold": "14"}])
    done = run(file, "--grader", "official", "--json")
    summary = json.loads(done.stdout)
    assert (summary["answer"], summary["strict"], summary["grader"]["name"]) == (100, 0, "official")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "a", "response": "x"}, "row 2: column gold: missing, found id, response"),
        ({"id": "a", "response": None, "gold": "1"}, "column response: found None, expected text"),
        ({"id": "a", "response": "x", "gold": True}, "column gold: found True, expected text or a number"),
        ({"id": "a", "response": "x", "gold": "1", "kind": "maths"}, "column kind: found 'maths'"),
        ({"id": "a", "response": "x", "gold": "A", "n_choices": 0}, "column n_choices: found 0"),
        ({"id": "a", "response": "x", "gold": "A", "choices": ["p"], "n_choices": 2}, "found 2 beside 1 choices"),
        ({"id": "a", "response": "x", "gold": "A", "choices": "AB"}, "column choices: found 'AB'"),
        ({"id": "a", "response": "x", "gold": "1", "prefilled": "no"}, "column prefilled: found 'no'"),
    ],
)
def test_a_bad_row_is_refused_with_nothing_written(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRow):
        to_item(row, "curiosft")
    if "gold" in row and row["gold"] != "1":
        return  # one round through the command line is enough for most
    out = tmp_path / "graded.jsonl"
    done = run(write(tmp_path / "rows.jsonl", [RIGHT, row]), "--out", out)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--grader", "offical"], "did you mean 'official'?"),
        (["--out", "."], "--out . is a folder"),
        (["--out", "nowhere/x.jsonl"], "its folder does not exist"),
    ],
)
def test_a_bad_flag_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(write(tmp_path / "rows.jsonl", [RIGHT]), *arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_killed_run_continues_where_it_was(tmp_path: Path) -> None:
    slow = {"response": "x</think>\\boxed{\\sum_{k=1}^{9999999} \\frac{1}{k^2}}", "gold": "3"}
    rows = [{**RIGHT, "id": str(n)} for n in range(40)] + [{**slow, "id": "slow"}, {**RIGHT, "id": "last"}]
    file, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "graded.jsonl"
    command = [sys.executable, "-m", "curiosft_cli.cli", "grade", str(file), "--out", str(out), "--workers", "1"]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (partial := list(tmp_path.glob(".*.partial"))) or not partial[0].stat().st_size:
        assert time.monotonic() < deadline and child.poll() is None, "nothing was graded"
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    marked = partial[0].read_text().replace('"reason": "correct"', '"reason": "correct", "seen": true', 1)
    partial[0].write_text(marked + '{"id": "torn')
    assert run(file, "--out", out).returncode == 0
    graded = lines(out)
    assert [row["id"] for row in graded] == [row["id"] for row in rows]
    assert graded[0]["seen"], "a finished row was graded again"
    assert not list(tmp_path.glob(".*.partial"))


def test_a_stream_is_read_only_so_far_ahead() -> None:
    read: list[int] = []

    def items() -> Any:
        for number in range(60):
            read.append(number)
            yield GradeItem(f"x</think>\\boxed{{{number}}}", Problem(str(number), "", str(number - number % 2)))

    with GraderPool(1) as pool:
        most = 0
        scores = []
        for number, grade in enumerate(pool.grade_in_order(items(), ahead=8)):
            most = max(most, read[-1] - number)
            scores.append(grade.answer)
    assert scores == [1.0, 0.0] * 30
    assert most <= 8
