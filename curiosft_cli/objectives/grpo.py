"""GRPO with clip-higher (Table 6), its group advantages, and the RL loss of the authors' code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from curiosft_cli.objectives.tokens import TokenLoss, TokenRows

if TYPE_CHECKING:
    from torch import Tensor

SingleRow = Literal["zero", "upstream"]


def group_advantage(
    reward: Tensor,
    group: Tensor,
    *,
    use_std: bool = True,
    epsilon: float = 1e-6,
    single_row: SingleRow = "zero",
) -> Tensor:
    """A = (r - mean) / (std + epsilon) within each group, one value per row [R].

    Args:
        reward: [R] float, one outcome reward per rollout.
        group: [R] int64, the prompt of each rollout, any integers.
        use_std: divide by the unbiased standard deviation; False leaves r - mean.
        epsilon: added to the standard deviation.
        single_row: advantage of a group with one row: "zero", since a lone reward has no baseline, or
            "upstream", which takes mean 0 and standard deviation 1.

    A group whose rewards are all equal gets exactly 0.
    """
    if reward.numel() == 0:
        return reward.clone()
    ids, index = group.unique(return_inverse=True)
    empty = reward.new_zeros(len(ids))
    count = empty.index_add(0, index, reward.new_ones(reward.shape))
    mean = empty.index_add(0, index, reward) / count
    highest = empty.scatter_reduce(0, index, reward, "amax", include_self=False)
    equal = highest == empty.scatter_reduce(0, index, reward, "amin", include_self=False)
    mean = highest.where(equal, mean)  # the mean of equal numbers, without the rounding of a sum
    squares = empty.index_add(0, index, (reward - mean[index]).square())
    std = (squares / (count - 1.0).clamp(min=1.0)).sqrt().masked_fill(equal, 0.0)

    alone = count <= 1.0
    mean, std = mean.masked_fill(alone, 0.0), std.masked_fill(alone, 1.0)
    advantage = reward - mean[index]
    if use_std:
        advantage = advantage / (std[index] + epsilon)
    return advantage.masked_fill(alone[index], 0.0) if single_row == "zero" else advantage


def ratio_of(logp: Tensor, old_logp: Tensor, log_ratio_clamp: float) -> Tensor:
    """pi / pi_old [N], the log-ratio clamped to +-`log_ratio_clamp` nats (no gradient beyond)."""
    return (logp - old_logp).clamp(-log_ratio_clamp, log_ratio_clamp).exp()


def clipped_surrogate(
    ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> Tensor:
    """max(-A r, -A clip(r, 1 - low, 1 + high)) [N]; with a dual clip c, at most -A c where A < 0."""
    loss = (-advantage * ratio).maximum(-advantage * ratio.clamp(1.0 - clip_low, 1.0 + clip_high))
    if dual_clip is None:
        return loss
    return loss.minimum(-advantage * dual_clip).where(advantage < 0, loss)


def clip_stats(ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float) -> dict[str, Tensor]:
    """For the log: the ratio, and 1 where clipping removed the gradient."""
    ratio = ratio.detach()
    cut = ((advantage > 0) & (ratio > 1.0 + clip_high)) | ((advantage < 0) & (ratio < 1.0 - clip_low))
    return {"ratio": ratio, "clipped": cut.float()}


def grpo(
    rows: TokenRows,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = None,
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """GRPO's clipped surrogate, no KL term and no entropy bonus. `extra`: old_logp, advantage.

    Args:
        clip_low: width of the clip below 1 (Table 6).
        clip_high: width of the clip above 1 (Table 6).
        dual_clip: bound of the ratio where the advantage is negative; none in the paper.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    advantage = rows.extra["advantage"]
    ratio = ratio_of(rows.logp, rows.extra["old_logp"], log_ratio_clamp)
    loss = clipped_surrogate(ratio, advantage, clip_low, clip_high, dual_clip)
    return TokenLoss(loss, clip_stats(ratio, advantage, clip_low, clip_high))


def curio_official(
    rows: TokenRows, *, clip_low: float = 0.2, clip_high: float = 0.2, log_ratio_clamp: float = 20.0
) -> TokenLoss:
    """min(-A log pi, -A clip(r)): what the authors' code runs, for replication. `extra`: old_logp, advantage.

    Where A > 0 the gradient is -A r inside the clip range and 0 outside on both sides; where A < 0 it is
    plain REINFORCE, without ratio or clipping.

    Args:
        clip_low: width of the clip below 1.
        clip_high: width of the clip above 1 (the published script sets none, so 0.2).
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    advantage = rows.extra["advantage"]
    ratio = ratio_of(rows.logp, rows.extra["old_logp"], log_ratio_clamp)
    loss = (-advantage * rows.logp).minimum(-advantage * ratio.clamp(1.0 - clip_low, 1.0 + clip_high))
    return TokenLoss(loss, {"ratio": ratio.detach()})
