"""The part of an RL method before its loss: who writes the rows of a prompt's group, and what each row is worth.

Axes: R rows (responses) of a training step, n tokens. A row may begin with tokens that the expert wrote: `guided` [R]
marks such rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random
from types import FunctionType
from typing import TYPE_CHECKING, Literal

from curiosft_cli.objectives.grpo import group_advantage
from curiosft_cli.objectives.tokens import Objective

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RowAdvantages:
    """What the rows of a step are worth.

    Attributes:
        sampled: [R], the advantage of tokens that the policy wrote.
        expert: [R], the advantage of tokens that the expert wrote.
        kept: [R] bool, the rows that are trained on.
    """

    sampled: Tensor
    expert: Tensor
    kept: Tensor


def rollouts_only(expert_length: int, rollouts: int, step: int, random: Random) -> list[int]:
    """The policy writes every row (GRPO). Returns the number of expert tokens at the start of each row."""
    return [0] * rollouts


def expert_last(expert_length: int, rollouts: int, step: int, random: Random) -> list[int]:
    """The expert's response takes the place of the last rollout (LUFFY, RL-PLUS)."""
    return [0] * (rollouts - 1) + [expert_length]


def expert_beside(expert_length: int, rollouts: int, step: int, random: Random) -> list[int]:
    """The expert's response comes in addition to the rollouts (HPT)."""
    return [0] * rollouts + [expert_length]


def prefix_last(
    expert_length: int,
    rollouts: int,
    step: int,
    random: Random,
    *,
    prefix_start: float = 0.95,
    prefix_end: float = 0.05,
    prefix_high: float = 0.95,
    prefix_decay_steps: int = 500,
    min_prefix_len: int = 1,
) -> list[int]:
    """The policy continues the beginning of the expert's response in the last row (Prefix-RFT).

    Args:
        prefix_start: lower end of the prefix share at step 0 (`prefix_low`).
        prefix_end: lower end after the decay.
        prefix_high: upper end of the prefix share.
        prefix_decay_steps: steps of the cosine decay.
        min_prefix_len: shortest prefix in tokens (our choice; the authors' value is unknown).
    """
    low = prefix_low(step, prefix_start=prefix_start, prefix_end=prefix_end, prefix_decay_steps=prefix_decay_steps)
    share = random.uniform(low, max(low, prefix_high))
    return [0] * (rollouts - 1) + [prefix_length(share, expert_length, min_prefix_len)]


def prefix_low(step: float, *, prefix_start: float, prefix_end: float, prefix_decay_steps: int) -> float:
    """Lower end of the prefix share at training step `step`: cosine decay, constant afterwards."""
    done = min(step / prefix_decay_steps, 1.0)
    return prefix_end + 0.5 * (1.0 + math.cos(math.pi * done)) * (prefix_start - prefix_end)


def prefix_length(share: float, expert_length: int, min_prefix_len: int) -> int:
    """Prefix in tokens: floor(share * length), at least the minimum, at most length - 1."""
    return max(0, min(max(math.floor(share * expert_length), min_prefix_len), expert_length - 1))


def whole_group(reward: Tensor, group: Tensor, guided: Tensor, use_std: bool) -> RowAdvantages:
    """Every row is compared with its whole group, the expert's row included (GRPO, LUFFY, RL-PLUS)."""
    advantage = group_advantage(reward, group, use_std=use_std)
    return RowAdvantages(advantage, advantage, guided.new_ones(guided.shape))


def prefix_apart(
    reward: Tensor,
    group: Tensor,
    guided: Tensor,
    use_std: bool,
    *,
    continuation_baseline: Literal["none", "group"] = "none",
) -> RowAdvantages:
    """Prefixes and their continuations have advantages of their own (Prefix-RFT).

    Args:
        continuation_baseline: see `prefix_advantage`.
    """
    sampled, prefix = prefix_advantage(
        reward, group, guided, use_std=use_std, continuation_baseline=continuation_baseline
    )
    return RowAdvantages(sampled, prefix, guided.new_ones(guided.shape))


def prefix_advantage(
    reward: Tensor,
    group: Tensor,
    prefixed: Tensor,
    *,
    use_std: bool = False,
    epsilon: float = 1e-6,
    continuation_baseline: Literal["none", "group"] = "none",
) -> tuple[Tensor, Tensor]:
    """Advantages of Prefix-RFT: (of sampled tokens [R], of prefix tokens [R]), one per row.

    Plain rows are compared with each other. With mu the mean reward of the group's plain rows, prefix tokens
    get r - mu averaged over the group's continuations, and continuation tokens the uncentred r
    (`continuation_baseline` "none", as the authors' code) or r - mu ("group").

    Args:
        reward: [R] float. group: [R] int64. prefixed: [R] bool, rows that start from an expert prefix.
        use_std: divide plain rows by their unbiased standard deviation.
        epsilon: added to that deviation.
    """
    prefixed = prefixed.bool()
    plain = group_advantage(
        reward[~prefixed], group[~prefixed], use_std=use_std, epsilon=epsilon, single_row="upstream"
    )
    ids, index = group.unique(return_inverse=True)
    zeros = reward.new_zeros(len(ids))
    plain_count = zeros.index_add(0, index, (~prefixed).to(reward.dtype)).clamp(min=1.0)
    mu = (zeros.index_add(0, index, reward * ~prefixed) / plain_count)[index]
    continuations = zeros.index_add(0, index, prefixed.to(reward.dtype)).clamp(min=1.0)
    gain = (zeros.index_add(0, index, (reward - mu) * prefixed) / continuations)[index]
    sampled = reward - mu if continuation_baseline == "group" else reward.clone()
    sampled[~prefixed] = plain
    return sampled, gain * prefixed


def gated(reward: Tensor, group: Tensor, guided: Tensor, use_std: bool, *, gate: int = 0) -> RowAdvantages:
    """Rollouts of a prompt that was solved often enough; the expert's row of every other prompt (HPT).

    The supervised term has no advantage: 1 says that the row counts.

    Args:
        gate: a prompt with at most this many correct rollouts drops them and trains on its expert row.
    """
    ids, index = group.unique(return_inverse=True)
    correct = reward.new_zeros(len(ids)).index_add(0, index, ((reward > 0) & ~guided).to(reward.dtype))
    taught = (correct <= gate)[index]
    reinforced = ~guided & ~taught
    sampled = reward.new_zeros(reward.shape)
    sampled[reinforced] = group_advantage(reward[reinforced], group[reinforced], use_std=use_std)
    return RowAdvantages(sampled, guided.to(reward.dtype), reinforced | (guided & taught))


def keep_prefix(entropy: Tensor, prefix: Tensor, *, prefix_keep_fraction: float = 0.2) -> Tensor:
    """Tokens that keep their advantage, [n] bool: not the lowest floor((1 - keep) n) entropies of the prefix.

    Args:
        entropy: [n] nats, of the current policy. prefix: [n] bool. Both over the whole mini-batch.
        prefix_keep_fraction: share of the prefix tokens that keep their advantage.
    """
    positions = prefix.bool().nonzero().squeeze(-1)
    drop = math.floor((1.0 - prefix_keep_fraction) * len(positions))
    keep = prefix.new_ones(prefix.shape).bool()
    keep[positions[entropy[positions].detach().argsort(stable=True)[:drop]]] = False
    return keep


@dataclass(frozen=True)
class RlMethod:
    """One RL method, whole. Every keyword-only argument of its functions is a parameter in `rl.params`.

    Attributes:
        loss: the loss of a token.
        rows: (expert's length, rollouts, step, random numbers) -> leading expert tokens of each row of a group.
        advantage: (reward [R], group [R], guided [R], use_std) -> `RowAdvantages`.
        use_std: default of `rl.advantage_std`, as in the method's own code.
        keep: (entropy [n], mark of expert tokens [n]) -> expert tokens that keep their advantage; None keeps all.
    """

    loss: Objective
    rows: FunctionType = rollouts_only
    advantage: FunctionType = whole_group
    use_std: bool = False
    keep: FunctionType | None = None

    @property
    def needs_expert(self) -> bool:
        """Whether every question must come with an expert's response."""
        return self.rows is not rollouts_only

    @property
    def objective(self) -> Objective:
        """The loss, with the parameters of the whole method."""
        beside = (*self.loss.beside, self.rows, self.advantage, *([self.keep] if self.keep else []))
        return replace(self.loss, beside=beside)
