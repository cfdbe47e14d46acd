"""RL with expert tokens in the batch: LUFFY, RL-PLUS, Prefix-RFT (experimental) and HPT.

`extra["expert"]` [N] bool marks tokens that the expert wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from curiosft_cli.objectives.grpo import clip_stats, clipped_surrogate, group_advantage, ratio_of
from curiosft_cli.objectives.tokens import TokenLoss, TokenRows

if TYPE_CHECKING:
    from torch import Tensor


def hybrid_needs(params: Mapping[str, Any]) -> frozenset[str]:
    bonus = any(params.get(name) for name in ("entropy_coef", "entropy_coef_prefix"))
    return frozenset({"old_logp", "advantage", "expert"} | ({"entropy"} if bonus else set()))


def hybrid_terms(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The entropy bonus is a mean over tokens, whatever the reduction of the policy loss is."""
    return ("reduction", "tokens") if "entropy" in hybrid_needs(params) else ("reduction",)


def _with_bonus(rows: TokenRows, loss: Tensor, coef: Tensor | float, stats: Mapping[str, Tensor]) -> TokenLoss:
    if rows.entropy is None:
        return TokenLoss(loss, stats)
    return TokenLoss((loss, -coef * rows.entropy), stats)


def _on_policy(ratio: Tensor, advantage: Tensor, clip_low: float | None, clip_high: float | None) -> Tensor:
    """-A r, or the clipped surrogate where both widths are given."""
    if clip_low is None or clip_high is None:
        return -advantage * ratio
    return clipped_surrogate(ratio, advantage, clip_low, clip_high)


def luffy(
    rows: TokenRows,
    *,
    shaping_gamma: float | None = 0.1,
    clip_low: float | None = None,
    clip_high: float | None = None,
    entropy_coef: float = 0.001,
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """LUFFY: -A r on sampled tokens, -A p / (p + gamma) on expert tokens.

    `extra`: old_logp, advantage, expert.

    Args:
        shaping_gamma: gamma of the policy shaping; none uses the probability itself.
        clip_low: width of the clip below 1 on sampled tokens; none (the published script) does not clip.
        clip_high: width of the clip above 1 on sampled tokens; none does not clip.
        entropy_coef: weight of the entropy bonus, a mean over all tokens.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    advantage, expert = rows.extra["advantage"], rows.extra["expert"].bool()
    ratio = ratio_of(rows.logp, rows.extra["old_logp"], log_ratio_clamp)
    p = rows.logp.exp()
    shaped = p if shaping_gamma is None else p / (p + shaping_gamma)
    loss = (-advantage * shaped).where(expert, _on_policy(ratio, advantage, clip_low, clip_high))
    return _with_bonus(rows, loss, entropy_coef, {"ratio": shaped.detach().where(expert, ratio.detach())})


def rl_plus(
    rows: TokenRows,
    *,
    exploration_gamma: float = 0.5,
    behaviour_weight: float = 0.5,
    clip_low: float | None = None,
    clip_high: float | None = None,
    entropy_coef: float = 0.001,
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """RL-PLUS: as LUFFY on sampled tokens; -A (1 - sg(p))^gamma rho on expert tokens.

    rho = 2 p / (q + w (q + 1)) with q the old policy's probability. `extra`: old_logp, advantage, expert.

    Args:
        exploration_gamma: exponent of the exploration advantage, larger for tokens the policy finds unlikely.
        behaviour_weight: w, the weight of the old policy and 1 in the estimate of the expert's probability.
        clip_low: width of the clip below 1 on sampled tokens; none (the published script) does not clip.
        clip_high: width of the clip above 1 on sampled tokens; none does not clip.
        entropy_coef: weight of the entropy bonus, a mean over all tokens.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    advantage, expert = rows.extra["advantage"], rows.extra["expert"].bool()
    old_logp = rows.extra["old_logp"]
    ratio = ratio_of(rows.logp, old_logp, log_ratio_clamp)
    p, q = rows.logp.exp(), old_logp.exp()
    rho = 2.0 * p / (q + behaviour_weight * (q + 1.0))
    surprise = (1.0 - p.detach()).clamp(min=0.0) ** exploration_gamma  # p may round above 1
    loss = (-advantage * surprise * rho).where(expert, _on_policy(ratio, advantage, clip_low, clip_high))
    return _with_bonus(rows, loss, entropy_coef, {"ratio": rho.detach().where(expert, ratio.detach())})


def prefix_rft(
    rows: TokenRows,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
    clip_prefix_tokens: bool = True,
    entropy_coef: float = 0.001,
    entropy_coef_prefix: float = 0.0,
    prefix_keep_fraction: float = 0.2,
    prefix_start: float = 0.95,
    prefix_end: float = 0.05,
    prefix_high: float = 0.95,
    prefix_decay_steps: int = 500,
    min_prefix_len: int = 1,
    continuation_baseline: Literal["none", "group"] = "none",
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """Prefix-RFT (experimental): PPO's clip on every token, expert prefix included.

    `extra`: old_logp, advantage, expert.

    Args:
        clip_low: width of the clip below 1.
        clip_high: width of the clip above 1.
        dual_clip: bound of the ratio where the advantage is negative; none has no bound.
        clip_prefix_tokens: false leaves prefix tokens at -A r; which one the authors ran is unknown.
        entropy_coef: weight of the entropy bonus on sampled tokens.
        entropy_coef_prefix: the same on prefix tokens.
        prefix_keep_fraction: share of the prefix tokens, by entropy, that keep their advantage
            (`keep_prefix`).
        prefix_start: lower end of the prefix share at step 0 (`prefix_low`).
        prefix_end: lower end after the decay.
        prefix_high: upper end of the prefix share.
        prefix_decay_steps: steps of the cosine decay.
        min_prefix_len: shortest prefix in tokens (our choice; the authors' value is unknown).
        continuation_baseline: see `prefix_advantage`.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    advantage, prefix = rows.extra["advantage"], rows.extra["expert"].bool()
    ratio = ratio_of(rows.logp, rows.extra["old_logp"], log_ratio_clamp)
    loss = clipped_surrogate(ratio, advantage, clip_low, clip_high, dual_clip)
    if not clip_prefix_tokens:
        loss = (-advantage * ratio).where(prefix, loss)
    coef = ratio.new_full(ratio.shape, entropy_coef).masked_fill(prefix, entropy_coef_prefix)
    return _with_bonus(rows, loss, coef, clip_stats(ratio, advantage, clip_low, clip_high))


def prefix_low(
    step: Tensor | float, *, prefix_start: float, prefix_end: float, prefix_decay_steps: int
) -> Tensor | float:
    """Lower end of the prefix share at optimizer step `step`: cosine decay, constant afterwards."""
    if isinstance(step, (int, float)):
        done = min(step / prefix_decay_steps, 1.0)
        return prefix_end + 0.5 * (1.0 + math.cos(math.pi * done)) * (prefix_start - prefix_end)
    done = (step / prefix_decay_steps).clamp(max=1.0)
    return prefix_end + 0.5 * (1.0 + (math.pi * done).cos()) * (prefix_start - prefix_end)


def prefix_length(share: float, expert_length: int, min_prefix_len: int) -> int:
    """Prefix in tokens: floor(share * length), at least the minimum, at most length - 1."""
    return max(0, min(max(math.floor(share * expert_length), min_prefix_len), expert_length - 1))


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


def keep_prefix(entropy: Tensor, prefix: Tensor, keep_fraction: float) -> Tensor:
    """Which tokens keep their advantage, [N] bool: not the lowest floor((1 - keep) n) entropies of the
    prefix.

    Args:
        entropy: [N] nats, of the current policy. prefix: [N] bool. Both over the whole mini-batch.
    """
    positions = prefix.bool().nonzero().squeeze(-1)
    drop = math.floor((1.0 - keep_fraction) * len(positions))
    keep = prefix.new_ones(prefix.shape).bool()
    keep[positions[entropy[positions].detach().argsort(stable=True)[:drop]]] = False
    return keep


def hpt(
    rows: TokenRows,
    *,
    gate: int = 0,
    sft_loss_coef: float = 1.0,
    entropy_coef: float = 0.001,
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """HPT: SFT on expert rows, -A r on sampled rows, each with its own divisor.

    `extra`: old_logp, advantage, expert.

    Args:
        gate: a prompt with at most this many correct rollouts drops them and trains on its expert row
            (`use_expert`).
        sft_loss_coef: weight of the SFT term (0.3 for their 1.5B model).
        entropy_coef: weight of the entropy bonus, a mean over all tokens.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    expert = rows.extra["expert"].bool()
    ratio = ratio_of(rows.logp, rows.extra["old_logp"], log_ratio_clamp)
    policy = (-rows.extra["advantage"] * ratio).masked_fill(expert, 0.0)
    supervised = (-sft_loss_coef * rows.logp).masked_fill(~expert, 0.0)
    bonus = () if rows.entropy is None else (-entropy_coef * rows.entropy,)
    return TokenLoss((policy, supervised, *bonus), {"ratio": ratio.detach()})


def hpt_terms(params: Mapping[str, Any]) -> tuple[str, ...]:
    return ("reduction", "expert", "tokens") if params["entropy_coef"] else ("reduction", "expert")


def use_expert(correct: int, gate: int) -> bool:
    """HPT's gate: whether a prompt with `correct` right rollouts trains on its expert row instead."""
    return correct <= gate
