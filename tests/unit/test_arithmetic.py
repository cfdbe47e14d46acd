"""The built-in task: repeatable, never the same question in both splits, and its experts are right."""

from __future__ import annotations

import pytest

from curiosft_cli.tasks.arithmetic import generate, noisy
from curiosft_cli.tasks.grading import grade


def test_the_same_seed_gives_the_same_problems_and_others_others() -> None:
    assert generate("train", 20, 3) == generate("train", 20, 3)
    assert generate("train", 20, 3) != generate("train", 20, 4)
    assert generate("train", 20, 3) == generate("train", 40, 3)[:20]


def test_no_question_is_in_both_splits_or_twice() -> None:
    train = [problem.question for seed in (0, 1) for problem in generate("train", 400, seed)]
    test = [problem.question for problem in generate("test", 200)]
    assert not set(train) & set(test)
    assert len(set(test)) == len(test)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_expert_answer_earns_the_strict_reward(split: str) -> None:
    for problem in generate(split, 60):
        assert grade(problem.response, problem).strict == 1.0, problem


def test_a_forum_post_holds_the_question_and_more() -> None:
    for problem in generate("train", 30):
        post = noisy(problem)
        assert len(post.question) > len(problem.question) + 5
        assert (post.answer, post.response) == (problem.answer, problem.response)
