"""Rollouts on disk: complete or invisible, bit for bit the same, stale ones refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.engine.base import Completion, cut_to
from curiosft_cli.run.files import JsonLines
from curiosft_cli.stages.rl.rollouts import Prompt, Rollout, as_row, describe, save_rollouts, saved_rollouts

PROMPT = Prompt(Problem("q1", "1+1?", "2"), [1, 2], (7, 8, 9))


def rollout(sample: int, strict: float | None = 1.0, given: int = 0, reason: str = "correct", **grade: str) -> Rollout:
    graded = Grade(strict, strict, "2", None, grade.get("status", "ok"), reason)  # ty: ignore[invalid-argument-type]
    return Rollout(0, sample, PROMPT, Completion((4, 5), (-0.1, -1 / 3), "stop", 6), graded, given)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    saved = [rollout(0), rollout(1, 0.0, given=2, reason="wrong")]
    save_rollouts(tmp_path / "step.jsonl.zst", saved)
    assert list(saved_rollouts(tmp_path / "step.jsonl.zst", {0: PROMPT}, 6)) == saved
    assert [path.name for path in tmp_path.iterdir()] == ["step.jsonl.zst"]
    assert saved[1].response == (7, 8, 4, 5)


def test_other_weights_and_other_questions_are_stale(tmp_path: Path) -> None:
    save_rollouts(tmp_path / "step.jsonl.zst", [rollout(0)])
    other = Prompt(Problem("q2", "2+2?", "4"), [1, 2])
    assert not list(saved_rollouts(tmp_path / "step.jsonl.zst", {0: PROMPT}, 7))
    assert not list(saved_rollouts(tmp_path / "step.jsonl.zst", {0: other}, 6))
    assert not list(saved_rollouts(tmp_path / "none.jsonl", {0: PROMPT}, 6))


def test_a_torn_line_is_drawn_again(tmp_path: Path) -> None:
    file = tmp_path / "step.rank-00000.jsonl"
    with JsonLines(file) as lines:
        for sample in range(3):
            lines.append(as_row(rollout(sample)))
    whole = file.read_bytes()
    for cut in (1, 40, len(whole.splitlines(keepends=True)[-1]) - 1):
        file.write_bytes(whole[:-cut])
        assert [r.sample for r in saved_rollouts(file, {0: PROMPT}, 6)] == [0, 1]


def test_rewards_reasons_and_grader_troubles_are_counted_apart_from_expert_rows() -> None:
    rows = [
        rollout(0),
        rollout(1, 0.0, reason="bad_format"),
        rollout(2, 0.0, reason="timeout", status="timeout"),
        rollout(3, None, reason="ungradable_gold"),
        rollout(4, 1.0, given=2),
    ]
    seen = describe(rows)
    assert seen["reward/mean"] == pytest.approx(1 / 3)
    assert seen["reward/bad_format"] == seen["reward/timeout"] == seen["reward/grader_timeout"] == 0.25
    assert seen["reward/expert"] == 1.0


def test_what_is_cut_ends_for_its_length() -> None:
    completion = Completion((4, 5, 6), (-0.1, -0.2, -0.3), "stop", 1)
    assert cut_to(completion, 3) is completion
    assert cut_to(completion, 2) == Completion((4, 5), (-0.1, -0.2), "length", 1)
