"""RL with expert tokens in the batch: LUFFY, RL-PLUS, Prefix-RFT (experimental) and HPT.

`extra["expert"]` [N] bool marks tokens that the expert wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curiosft_cli.objectives.grpo import clip_stats, clipped_surrogate, ratio_of
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
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    advantage, prefix = rows.extra["advantage"], rows.extra["expert"].bool()
    ratio = ratio_of(rows.logp, rows.extra["old_logp"], log_ratio_clamp)
    loss = clipped_surrogate(ratio, advantage, clip_low, clip_high, dual_clip)
    if not clip_prefix_tokens:
        loss = (-advantage * ratio).where(prefix, loss)
    coef = ratio.new_full(ratio.shape, entropy_coef).masked_fill(prefix, entropy_coef_prefix)
    return _with_bonus(rows, loss, coef, clip_stats(ratio, advantage, clip_low, clip_high))


def hpt(
    rows: TokenRows,
    *,
    sft_loss_coef: float = 1.0,
    entropy_coef: float = 0.001,
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """HPT: SFT on expert rows, -A r on sampled rows, each with its own divisor.

    `extra`: old_logp, advantage, expert.

    Args:
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
