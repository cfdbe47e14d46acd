"""The built-in generator: right answers, splits that never share a question, the same everywhere."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curiosft_cli.data.arithmetic import SeededChoices, generate, noisy, split_of, without_noise
from curiosft_cli.grading.grade import grade
from curiosft_cli.stages.rephrase.demonstration import AFTER_POST, BEFORE_POST, reply
from curiosft_cli.stages.rephrase.judge.rules import judge_by_rules
from curiosft_cli.stages.rephrase.judge.verify import verify_message

STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)\.")
GOLDEN_QUESTION = (
    "Carla reads 13 pages a day for 4 days, and 10 pages on the last day. How many pages does Carla read in total?"
)
GOLDEN_ANSWER = "62"
GOLDEN_DRAWS = [838, 48, 954, 180, 81]
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["train", "test"]))
def test_every_step_of_every_expert_is_right(seed: int, split: str) -> None:
    for problem in generate(split, 20, seed):
        steps = STEP.findall(problem.response)
        assert 1 <= len(steps) <= 3
        total = steps[0][0]
        for left, operation, right, result in steps:
            assert left == total
            assert OPERATIONS[operation](int(left), int(right)) == int(result) > 0
            assert operation != "/" or int(left) % int(right) == 0
            total = result
        assert problem.answer == total


def test_all_numbers_of_the_steps_but_the_totals_come_from_the_question() -> None:
    for problem in generate("train", 300):
        numbers = re.findall(r"\d+", problem.question)
        steps = STEP.findall(problem.response)
        assert steps[0][0] in numbers
        assert all(right in numbers for _, _, right, _ in steps)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_expert_earns_the_strict_reward(split: str) -> None:
    for problem in generate(split, 60):
        assert grade(problem.response, problem).strict == 1.0, problem


def test_the_splits_never_share_a_question_whatever_the_seeds() -> None:
    train = {problem.question for seed in range(5) for problem in generate("train", 400, seed)}
    test = {problem.question for seed in range(5) for problem in generate("test", 400, seed)}
    assert not train & test
    assert {split_of(question) for question in train} == {"train"}
    assert {split_of(question) for question in test} == {"test"}


def test_rows_are_different_and_a_longer_set_starts_with_the_shorter_one() -> None:
    long, short = generate("train", 500, 3), generate("train", 50, 3)
    assert long[:50] == short
    assert len({problem.question for problem in long}) == len({problem.id for problem in long}) == 500


def test_another_seed_gives_other_problems() -> None:
    assert {problem.question for problem in generate("train", 50, 0)} != {p.question for p in generate("train", 50, 1)}


def test_golden_first_problem_of_the_test_split() -> None:
    problem = generate("test", 1)[0]
    assert problem.question == GOLDEN_QUESTION
    assert problem.answer == GOLDEN_ANSWER


def test_golden_draws_do_not_depend_on_the_python_version() -> None:
    draw = SeededChoices("a seed")
    assert [draw.below(1000) for _ in range(5)] == GOLDEN_DRAWS


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_noisy_post_holds_the_question_and_cleaning_it_is_never_refused(seed: int) -> None:
    for problem in generate("train", 100, seed):
        post = noisy(problem, seed)
        assert problem.question in post.question != problem.question
        assert (post.answer, post.response, post.id) == (problem.answer, problem.response, problem.id)
        assert judge_by_rules(post.question, problem.question).outcome != "refused"


def test_the_script_of_the_demonstration_undoes_the_noise_and_sometimes_errs() -> None:
    """One answer in eight has a changed number, so that a check has something to refuse."""
    pairs = [
        (problem.question, noisy(problem, seed).question) for problem in generate("train", 200, 3) for seed in range(3)
    ]
    assert all(without_noise(post) == question for question, post in pairs)
    answers = [(question, post, reply(BEFORE_POST + post + AFTER_POST)) for question, post in pairs]
    right = [answer == question for question, _, answer in answers]
    assert 1 / 16 < right.count(False) / len(right) < 3 / 16
    assert [json.loads(reply(verify_message(post, answer, ())))["same"] for _, post, answer in answers] == right
