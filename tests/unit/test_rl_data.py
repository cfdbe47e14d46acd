"""What RL leaves out before it starts: counted by reason, listed by id, never in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import build_tiny_tokenizer

from curiosft_cli.run.config import load
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.stages.rl.prompts import read_prompts
from curiosft_cli.stages.rl.rollouts import Prompt

ROWS: list[dict[str, Any]] = [
    {"id": "good", "question": "1+1?", "answer": "2", "response": "<think>\nx\n</think>\n\n\\boxed{2}"},
    {"id": "silent", "question": "2+2?", "answer": "4"},
    {"id": "long", "question": "word " * 300, "answer": "1", "response": "x"},
    {"id": "empty", "question": "which?", "answer": "$$", "response": "x"},
    {"id": "unread", "answer": "1", "response": "x"},
]
PLAIN = ('model.system_prompt=""', 'model.question_prefix=""')
"""A byte a token: Table 7's message would be longer than the questions."""


def read(tmp_path: Path, *, expert: bool) -> tuple[list[Prompt], dict[str, list[str]], str]:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = [f'data.train=["{data}"]', "data.on_bad_row=skip", "data.max_prompt_length=400", *PLAIN]
    stage = StageDir(tmp_path / "run" / "rl")
    console = Console(stage.log_file)
    prompts = read_prompts(load("grpo", settings).config, stage, build_tiny_tokenizer(), console, expert=expert)
    return prompts, json.loads(stage.skipped_rows("train").read_text()), stage.log_file.read_text()


def test_every_question_left_out_is_counted_and_listed(tmp_path: Path) -> None:
    prompts, listed, said = read(tmp_path, expert=False)
    assert [prompt.problem.id for prompt in prompts] == ["good", "silent"]
    assert listed["are longer than data.max_prompt_length"] == ["long"]
    assert listed["have an answer that cannot be graded"] == ["empty"]
    assert len(listed["cannot be read"]) == 1
    assert "1 questions left out, they are longer than data.max_prompt_length, e.g. long" in said
    assert "1 questions left out, they have an answer that cannot be graded, e.g. empty" in said


def test_an_objective_with_experts_needs_their_responses(tmp_path: Path) -> None:
    prompts, listed, _ = read(tmp_path, expert=True)
    assert [prompt.problem.id for prompt in prompts] == ["good"]
    assert listed["lack an expert response"] == ["silent"]
    assert prompts[0].expert and not prompts[0].expert_cut


@pytest.mark.parametrize("rank_writes", [True, False])
def test_one_rank_writes_the_list(rank_writes: bool, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]))
    stage = StageDir(tmp_path / "run" / "rl")
    config = load("grpo", [f'data.train=["{data}"]', "data.max_prompt_length=400", *PLAIN]).config
    tokenizer = build_tiny_tokenizer()
    read_prompts(config, stage, tokenizer, Console(enabled=False), expert=False, write=rank_writes)
    assert stage.skipped_rows("train").exists() is rank_writes
