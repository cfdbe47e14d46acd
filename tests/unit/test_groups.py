"""How groups are made up and credited: numbers worked out by hand for every objective."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curiosft_cli.objectives import RL_METHODS, RL_OBJECTIVES
from curiosft_cli.stages.rl.groups import TrainingSample, credited, informative, mini_batches
from curiosft_cli.train.encode import Row

BOUND = {name: method.objective.bind() for name, method in RL_METHODS.items()}


def rows(objective: str, length: int, rollouts: int, step: int, random: Random) -> list[int]:
    return BOUND[objective].filled(RL_METHODS[objective].rows)(length, rollouts, step, random)


def credit(objective: str, samples: list[TrainingSample], use_std: bool) -> list[TrainingSample]:
    return credited(samples, RL_METHODS[objective], BOUND[objective], use_std)


def sample(group: int, reward: float, given: int = 0, length: int = 4) -> TrainingSample:
    return TrainingSample(Row((1,), tuple(range(length))), group, reward, given, (-1.0,) * (length - given))


def test_every_method_has_an_objective() -> None:
    assert RL_METHODS.keys() == RL_OBJECTIVES.keys()


@pytest.mark.parametrize(
    ("objective", "expected"),
    [("grpo", [0, 0, 0, 0]), ("luffy", [0, 0, 0, 9]), ("rl_plus", [0, 0, 0, 9]), ("hpt", [0, 0, 0, 0, 9])],
)
def test_who_writes_the_rows(objective: str, expected: list[int]) -> None:
    assert rows(objective, 9, 4, 0, Random(0)) == expected


@given(st.integers(2, 400), st.integers(0, 1000), st.integers())
def test_the_prefix_shrinks_with_the_steps_and_leaves_a_token(length: int, step: int, seed: int) -> None:
    """low(0) = 0.95 = high, so the first prefix is floor(0.95 n); from step 500 on it is anything from 0.05 n."""
    first = rows("prefix_rft", length, 8, 0, Random(seed))
    assert first[:-1] == [0] * 7 and first[-1] == max(1, int(0.95 * length))
    later = rows("prefix_rft", length, 8, step, Random(seed))[-1]
    assert 1 <= later <= length - 1


def test_luffy_compares_the_expert_with_the_rollouts() -> None:
    """Rewards 0 0 1 and the expert's 1: mean 1/2, no standard deviation."""
    group = [sample(3, 0.0), sample(3, 0.0), sample(3, 1.0), sample(3, 1.0, given=4)]
    credited = credit("luffy", group, False)
    assert [s.advantage for s in credited] == [-0.5, -0.5, 0.5, 0.5]
    assert credited[3].given_advantage == 0.5


def test_prefix_rft_credits_prefix_and_continuation_apart() -> None:
    """Plain rewards 0 1: mu = 1/2. Prefixed reward 1: prefix 1 - 1/2, continuation 1 (uncentred)."""
    group = [sample(0, 0.0), sample(0, 1.0), sample(0, 1.0, given=2)]
    credited = credit("prefix_rft", group, False)
    assert [s.advantage for s in credited] == [-0.5, 0.5, 1.0]
    assert [s.given_advantage for s in credited] == [0.0, 0.0, 0.5]


def test_hpt_teaches_where_nothing_was_right_and_reinforces_elsewhere() -> None:
    failed = [sample(0, 0.0), sample(0, 0.0), sample(0, 1.0, given=4)]
    solved = [sample(1, 0.0), sample(1, 1.0), sample(1, 1.0, given=4)]
    credited = credit("hpt", [*failed, *solved], False)
    assert [(s.group, s.given, s.advantage) for s in credited] == [(0, 4, 0.0), (1, 0, -0.5), (1, 0, 0.5)]
    assert informative(credited) == {0, 1}


def test_groups_of_equal_rewards_teach_nothing() -> None:
    samples = [sample(0, 1.0), sample(0, 1.0), sample(1, 0.0), sample(1, 1.0), sample(2, 0.0), sample(2, 0.0)]
    assert informative(credit("grpo", samples, True)) == {1}
    assert credit("grpo", [], True) == []


def test_mini_batches_take_groups_in_order_whatever_is_missing() -> None:
    samples = [sample(group, 0.0) for group in (0, 0, 2, 5, 5, 7)]
    assert [[s.group for s in batch] for batch in mini_batches(samples, 2)] == [[0, 0, 2], [5, 5, 7]]
    assert mini_batches([], 2) == []
