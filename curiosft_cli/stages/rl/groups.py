"""The graded responses of a step as training rows: their advantages, and the mini-batches they are trained in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from curiosft_cli.train.encode import Row

if TYPE_CHECKING:
    from curiosft_cli.objectives import BoundObjective, RlMethod
    from curiosft_cli.run.sections import Rl
    from curiosft_cli.stages.rl.rollouts import Rollout


@dataclass(frozen=True)
class TrainingSample:
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
        """Whether any token of it has a gradient."""
        return bool((self.advantage and self.engine_logp) or (self.given_advantage and self.given))


def with_advantages(
    rollouts: Sequence[Rollout], method: RlMethod, objective: BoundObjective, rl: Rl
) -> list[TrainingSample]:
    """The training rows of a step, each with its advantage within its group.

    A rollout whose answer cannot be graded says nothing: it is left out of its group.
    """
    samples = [
        TrainingSample(
            Row(tuple(rollout.prompt.ids), rollout.response, problem_id=rollout.prompt.problem.id),
            rollout.group,
            rollout.grade.strict,
            rollout.given,
            rollout.completion.logprobs,
        )
        for rollout in rollouts
        if rollout.grade.strict is not None
    ]
    use_std = method.use_std if rl.advantage_std is None else rl.advantage_std
    return credited(samples, method, objective, use_std)


def credited(
    samples: Sequence[TrainingSample], method: RlMethod, objective: BoundObjective, use_std: bool
) -> list[TrainingSample]:
    """The samples that the method trains on, with their advantages."""
    import torch

    if not samples:
        return []
    worth = objective.filled(method.advantage)(
        torch.tensor([sample.reward for sample in samples], dtype=torch.float32),
        torch.tensor([sample.group for sample in samples]),
        torch.tensor([sample.given > 0 for sample in samples]),
        use_std,
    )
    columns = zip(samples, worth.sampled.tolist(), worth.expert.tolist(), worth.kept.tolist(), strict=True)
    return [
        replace(sample, advantage=sampled, given_advantage=expert) for sample, sampled, expert, kept in columns if kept
    ]


def informative(samples: Sequence[TrainingSample]) -> set[int]:
    """Groups with at least one row that moves the policy. In the others all rewards are equal."""
    return {sample.group for sample in samples if sample.moves}


def mini_batches(samples: Sequence[TrainingSample], prompts: int) -> list[list[TrainingSample]]:
    """The samples of each update: `prompts` groups at a time, in the order of their numbers."""
    groups = sorted({sample.group for sample in samples})
    place = {group: number // prompts for number, group in enumerate(groups)}
    batches: list[list[TrainingSample]] = [[] for _ in range(-(-len(groups) // prompts))]
    for sample in samples:
        batches[place[sample.group]].append(sample)
    return batches


def trained_on(samples: Sequence[TrainingSample], rl: Rl) -> list[TrainingSample]:
    """The samples without the groups that teach nothing, where `rl.zero_variance` drops those."""
    if rl.zero_variance == "keep":
        return list(samples)
    useful = set(sorted(informative(samples))[: rl.prompts_per_step])
    return [sample for sample in samples if sample.group in useful]
