"""The preflight's checks of what lies around the model: each is no go for the fault that it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import build_tiny_tokenizer

from curiosft_cli.data.records import Problem
from curiosft_cli.engine.base import Sampling
from curiosft_cli.run.config import load
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.log import Console
from curiosft_cli.stages.rl.preflight import (
    PreflightCheck,
    _hand_made_checks,
    _prompt_check,
    _stop_check,
    as_table,
    enforce,
)
from curiosft_cli.stages.rl.rollouts import Prompt
from curiosft_cli.train.encode import PromptFormat, encode_prompt, end_token_id

TOKENIZER = build_tiny_tokenizer()
CONFIG = load("grpo", ['model.system_prompt=""', 'model.question_prefix=""']).config
PROBLEMS = [Problem("sum", "1+1?", "2"), Problem("letter", "which?", "B", kind="choice", choices=("x", "y", "z"))]
PROMPTS = [Prompt(p, encode_prompt(TOKENIZER, p, PromptFormat.from_config(CONFIG.model))) for p in PROBLEMS]
SAMPLING = Sampling(1.0, 1.0, 64, (end_token_id(TOKENIZER),))


def test_a_sound_set_up_is_go() -> None:
    checks = [
        _prompt_check(CONFIG, TOKENIZER, PROMPTS),
        _stop_check(TOKENIZER, SAMPLING),
        *_hand_made_checks(CONFIG, TOKENIZER, PROBLEMS, SAMPLING),
    ]
    assert [check.go for check in checks] == [True] * 4, as_table(checks)


def test_prompts_without_question_or_with_two_prefills_are_no_go() -> None:
    prefill = TOKENIZER.encode(CONFIG.model.prefill, add_special_tokens=False)
    blind = Prompt(PROBLEMS[0], [1, *prefill])
    twice = Prompt(PROBLEMS[0], [*PROMPTS[0].ids, *prefill])
    bare = Prompt(PROBLEMS[0], PROMPTS[0].ids[: -len(prefill)])
    for wrong in (blind, twice, bare):
        check = _prompt_check(CONFIG, TOKENIZER, [wrong, PROMPTS[1]])
        assert not check.go and check.plumbing and "1 of 2" in check.seen


def test_an_end_that_sampling_does_not_know_is_no_go() -> None:
    check = _stop_check(TOKENIZER, Sampling(1.0, 1.0, 64, (0,)))
    assert not check.go and check.plumbing and "generation_config" in check.fix


def test_a_stop_in_the_middle_of_every_right_answer_is_no_go() -> None:
    """A backslash that ends the completion cuts each answer before its box: the classic silent zero."""
    cut = Sampling(1.0, 1.0, 64, (*SAMPLING.stop_token_ids, *TOKENIZER.encode("\\", add_special_tokens=False)))
    right, wrong = _hand_made_checks(CONFIG, TOKENIZER, PROBLEMS, cut)
    assert not right.go and right.plumbing and "0 of 2 are rewarded" in right.seen
    assert wrong.go


def test_one_bad_gold_is_said_and_does_not_stop() -> None:
    problems = [*PROBLEMS, Problem("gold", "which?", "$$")]
    right, _ = _hand_made_checks(CONFIG, TOKENIZER, problems, SAMPLING)
    assert not right.go and not right.plumbing and "gold" in right.seen


@pytest.mark.parametrize(("action", "plumbing", "stops"), [("stop", True, True), ("stop", False, False), ("warn", True, False)])  # fmt: skip
def test_only_broken_plumbing_stops_and_all_is_said(action: str, plumbing: bool, stops: bool, tmp_path: Path) -> None:
    checks = [PreflightCheck("fine", True, "all"), PreflightCheck("broken", False, "none", "Mend it.", plumbing)]
    console = Console(tmp_path / "log.txt")
    if stops:
        with pytest.raises(CurioError, match="broken: none") as raised:
            enforce(checks, action, console)
        assert raised.value.exit_code == GUARD
    else:
        enforce(checks, action, console)
    assert "preflight: broken: none. Mend it." in (tmp_path / "log.txt").read_text()
    assert "fine" not in (tmp_path / "log.txt").read_text()
