"""LUFFY's advantage with a baseline of sampled rows only. No RL method here uses it; it reproduces golden cases."""

from __future__ import annotations

from torch import Tensor

from curiosft_cli.objectives.grpo import SingleRow, group_advantage


def split_advantage(
    reward: Tensor,
    group: Tensor,
    on_policy: Tensor,
    *,
    use_std: bool = True,
    epsilon: float = 1e-6,
    single_row: SingleRow = "zero",
) -> Tensor:
    """As `group_advantage`, but the baseline of a group is that of its rows with `on_policy` [R] only.

    Expert rows get (r - mean) / (std + epsilon) of the sampled rows, with a standard deviation of 0 replaced by 1.
    """
    advantage = reward.new_zeros(reward.shape)
    for one in group.unique():
        sampled, expert = (group == one) & on_policy.bool(), (group == one) & ~on_policy.bool()
        rewards = reward[sampled]
        advantage[sampled] = group_advantage(
            rewards, group[sampled], use_std=use_std, epsilon=epsilon, single_row=single_row
        )
        if len(rewards) > 1:
            std = rewards.std() if bool((rewards != rewards[0]).any()) else rewards.new_ones(())
            advantage[expert] = (reward[expert] - rewards.mean()) / (std + epsilon if use_std else 1.0)
        elif single_row == "upstream":
            advantage[expert] = reward[expert] / (1.0 + epsilon if use_std else 1.0)
    return advantage
