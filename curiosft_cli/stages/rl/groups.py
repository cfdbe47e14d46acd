"""How the group of one prompt is made up, and the advantage of each of its rows: one entry per RL objective.

Plain groups hold rollouts only. LUFFY and RL-PLUS replace the last rollout by the expert's response, Prefix-RFT lets
the policy continue the expert's beginning there, HPT trains on the expert's response where no rollout was right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from curiosft_cli.objectives.grpo import group_advantage
from curiosft_cli.objectives.hybrid import prefix_advantage, prefix_length, prefix_low, use_expert

if TYPE_CHECKING:
    from curiosft_cli.train.encode import Row

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One response as a training row.

    Attributes:
        row: prompt and response.
        group: its prompt's number in the step.
        reward: 0 or 1.
        given: leading tokens of the response that the expert wrote.
        engine_logp: log-probabilities in nats, at temperature 1, of the tokens after these, as the engine saw them.
        advantage: of the tokens that the policy wrote.
        given_advantage: of the tokens that the expert wrote.
    """

    row: Row
    group: int
    reward: float
    given: int = 0
    engine_logp: tuple[float, ...] = ()
    advantage: float = 0.0
    given_advantage: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether any token of it pulls at the policy."""
        return bool((self.advantage and self.engine_logp) or (self.given_advantage and self.given))


@dataclass(frozen=True)
class Grouping:
    """Who writes the rows of a group, and what they are worth.

    Attributes:
        given: (expert's length, rollouts, step, parameters, random numbers) -> leading expert tokens of each row.
        credit: (the step's samples, parameters, divide by the standard deviation) -> those that are trained on, with
            their advantages.
        expert: whether the data must have an expert's response.
        use_std: default of `rl.advantage_std`: what the method's own code does.
        filters: whether expert tokens of low entropy lose their advantage (`keep_prefix`).
    """

    given: Callable[[int, int, int, Params, Random], list[int]]
    credit: Callable[[Sequence[Sample], Params, bool], list[Sample]]
    expert: bool = False
    use_std: bool = False
    filters: bool = False


def _no_expert(length: int, rollouts: int, step: int, params: Params, random: Random) -> list[int]:
    return [0] * rollouts


def _expert_last(length: int, rollouts: int, step: int, params: Params, random: Random) -> list[int]:
    return [0] * (rollouts - 1) + [length]


def _expert_beside(length: int, rollouts: int, step: int, params: Params, random: Random) -> list[int]:
    return [0] * rollouts + [length]


def _prefix_last(length: int, rollouts: int, step: int, params: Params, random: Random) -> list[int]:
    names = ("prefix_start", "prefix_end", "prefix_decay_steps")
    low = float(prefix_low(step, **{name: params[name] for name in names}))
    high = max(low, params["prefix_high"])
    return [0] * (rollouts - 1) + [prefix_length(random.uniform(low, high), length, params["min_prefix_len"])]


def _in_one_group(samples: Sequence[Sample], params: Params, use_std: bool) -> list[Sample]:
    """Every row is compared with its whole group, the expert's among them."""
    import torch

    if not samples:
        return []
    reward = torch.tensor([sample.reward for sample in samples], dtype=torch.float32)
    group = torch.tensor([sample.group for sample in samples])
    values = group_advantage(reward, group, use_std=use_std).tolist()
    return [
        replace(sample, advantage=value, given_advantage=value) for sample, value in zip(samples, values, strict=True)
    ]


def _prefix_apart(samples: Sequence[Sample], params: Params, use_std: bool) -> list[Sample]:
    import torch

    if not samples:
        return []
    sampled, given = prefix_advantage(
        torch.tensor([sample.reward for sample in samples], dtype=torch.float32),
        torch.tensor([sample.group for sample in samples]),
        torch.tensor([sample.given > 0 for sample in samples]),
        use_std=use_std,
        continuation_baseline=params["continuation_baseline"],
    )
    return [
        replace(sample, advantage=own, given_advantage=prefix)
        for sample, own, prefix in zip(samples, sampled.tolist(), given.tolist(), strict=True)
    ]


def _gated(samples: Sequence[Sample], params: Params, use_std: bool) -> list[Sample]:
    """The rollouts of a prompt that was solved often enough, the expert's row of the others."""
    rollouts = [sample for sample in samples if not sample.given]
    correct = dict.fromkeys((sample.group for sample in samples), 0)
    for sample in rollouts:
        correct[sample.group] += sample.reward > 0
    taught = {group for group, count in correct.items() if use_expert(count, params["gate"])}
    kept = _in_one_group([sample for sample in rollouts if sample.group not in taught], params, use_std)
    # The supervised term has no advantage; 1 says that the row counts.
    expert = [replace(sample, given_advantage=1.0) for sample in samples if sample.given and sample.group in taught]
    return sorted([*kept, *expert], key=lambda sample: sample.group)


PLAIN = Grouping(_no_expert, _in_one_group, use_std=True)
EXPERT_ROW = Grouping(_expert_last, _in_one_group, expert=True)

GROUPINGS: dict[str, Grouping] = {
    "grpo": PLAIN,
    "curio_official": PLAIN,
    "luffy": EXPERT_ROW,
    "rl_plus": EXPERT_ROW,
    "prefix_rft": Grouping(_prefix_last, _prefix_apart, expert=True, filters=True),
    "hpt": Grouping(_expert_beside, _gated, expert=True),
}


def informative(samples: Sequence[Sample]) -> set[int]:
    """Groups with at least one row that pulls at the policy; the others have equal rewards throughout."""
    return {sample.group for sample in samples if sample.moves}


def mini_batches(samples: Sequence[Sample], prompts: int) -> list[list[Sample]]:
    """The samples of each update: `prompts` groups at a time, in the order of their numbers."""
    groups = sorted({sample.group for sample in samples})
    place = {group: number // prompts for number, group in enumerate(groups)}
    batches: list[list[Sample]] = [[] for _ in range(-(-len(groups) // prompts))]
    for sample in samples:
        batches[place[sample.group]].append(sample)
    return batches
