"""The supervised baselines of Table 2: SFT, entropy bonuses, KL to the base model, GEM, DFT and PSFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from curiosft_cli.objectives.tokens import LOGIT_FLOOR, TokenLoss, TokenRows

if TYPE_CHECKING:
    from torch import Tensor


def sft(rows: TokenRows) -> TokenLoss:
    """Cross-entropy, -log pi(y) (Eq. 1)."""
    return TokenLoss(-rows.logp)


def entropy(rows: TokenRows, *, entropy_coef: float = 0.06) -> TokenLoss:
    """-log pi(y) - a H over the whole vocabulary (Eq. 2).

    Args:
        entropy_coef: a; Section 3 finds 0.06 reasonable and 0.08 and more to explode.
    """
    assert rows.entropy is not None
    return TokenLoss(-rows.logp - entropy_coef * rows.entropy)


def select_top(entropy: Tensor, *, top_fraction: float = 0.2) -> Tensor:
    """The tokens with the highest entropy: [N] bool, H >= the linear quantile (TRL's rule).

    Args:
        entropy: [N] nats, of every counted token of the optimizer step, on all ranks. Empty gives empty.
        top_fraction: share of the tokens that is selected.
    """
    if entropy.numel() == 0:
        return entropy.bool()
    # float64: in float32 the quantile's position rounds past the token it should fall on.
    values = entropy.detach().double()
    return values >= values.quantile(1.0 - top_fraction)


def entropy_top(
    rows: TokenRows,
    *,
    entropy_coef: float = 0.06,
    denominator: Literal["all", "selected"] = "all",
) -> TokenLoss:
    """-log pi(y) - a s H with s = 1 on the highest-entropy tokens. `extra`: selected (`select_top`).

    Args:
        entropy_coef: a, as in `entropy`.
        denominator: "all" divides the entropy term as the first one, so a selected token feels what it feels
            in `entropy`; "selected" divides by the number of selected tokens.
    """
    assert rows.entropy is not None
    bonus = -entropy_coef * rows.extra["selected"].to(rows.logp.dtype) * rows.entropy
    return TokenLoss((-rows.logp, bonus) if denominator == "selected" else -rows.logp + bonus)


def entropy_top_terms(params: Mapping[str, Any]) -> tuple[str, ...]:
    return ("reduction", "selected") if params["denominator"] == "selected" else ("reduction",)


def kl_divergence(logp: Tensor, other: Tensor) -> Tensor:
    """sum_v p_v (log p_v - log q_v) [N] from two full log-distributions [N, V], with 0 log 0 = 0."""
    return (logp.exp() * (logp.clamp(min=LOGIT_FLOOR) - other.clamp(min=LOGIT_FLOOR))).sum(-1)


def kl_of_kind(kind: Literal["reverse", "forward"], logp: Tensor, other: Tensor) -> Tensor:
    """KL(pi || other) or, "forward", KL(other || pi), [N], from the student's log-distribution and another [N, V]."""
    return kl_divergence(logp, other) if kind == "reverse" else kl_divergence(other, logp)


def k3(logp: Tensor, ref_logp: Tensor, log_ratio_clamp: float, k3_max: float) -> Tensor:
    """exp(d) - d - 1 [N] with d = log pi_base(y) - log pi(y); not an unbiased KL on expert tokens."""
    d = (ref_logp - logp).clamp(-log_ratio_clamp, log_ratio_clamp)
    return (d.exp() - d - 1.0).clamp(max=k3_max)


def kl(
    rows: TokenRows,
    *,
    kl_coef: float = 0.1,
    kl_kind: Literal["reverse", "forward", "k3"] = "reverse",
    log_ratio_clamp: float = 20.0,
    k3_max: float = 10.0,
) -> TokenLoss:
    """-log pi(y) + k KL against the frozen base model. `extra`: ref_logp for "k3".

    Args:
        kl_coef: k; the paper does not state it, 0.1 is our choice.
        kl_kind: "reverse" KL(pi || base), "forward" KL(base || pi), "k3" an estimate on the expert token
            alone.
        log_ratio_clamp: bound of the log-ratio inside k3, nats.
        k3_max: bound of the k3 estimate, nats; beyond it the token has no KL gradient.
    """
    if kl_kind == "k3":
        divergence = k3(rows.logp, rows.extra["ref_logp"], log_ratio_clamp, k3_max)
    else:
        assert rows.logits is not None and rows.ref_logits is not None
        divergence = kl_of_kind(kl_kind, rows.logits.log_softmax(-1), rows.ref_logits.log_softmax(-1))
    return TokenLoss(-rows.logp + kl_coef * divergence, {"kl": divergence.detach()})


def kl_needs(params: Mapping[str, Any]) -> frozenset[str]:
    return frozenset({"ref_logp"} if params["kl_kind"] == "k3" else {"logits", "ref_logits"})


def gem(
    rows: TokenRows,
    *,
    beta: float = 0.7,
    gem_h: Literal["logsigmoid", "linear"] = "logsigmoid",
    gem_slope: float = 0.01,
) -> TokenLoss:
    """GEM: -sum_v q_v g_v (log pi(y) - log pi_v) with q = softmax(z / beta), q and g without gradient.

    Args:
        beta: temperature of q (the authors' default).
        gem_h: "linear" has g = 1; "logsigmoid" has g_v = sigmoid(slope (z_v - z_y)) (the published scripts).
        gem_slope: slope of that sigmoid (the authors' code).
    """
    assert rows.logits is not None
    logits = rows.logits.detach()
    chosen = logits.gather(-1, rows.labels.unsqueeze(-1))
    weight = (logits / beta).softmax(-1)
    if gem_h == "logsigmoid":
        weight = weight * (logits - chosen).mul_(gem_slope).sigmoid_()
    # sum_v c_v (log p_y - log p_v) = C z_y - sum_v c_v z_v: the normaliser cancels, in value and in gradient.
    # Both are taken relative to the value of z_y, so that nothing as large as a logit is rounded.
    others = (weight * (rows.logits - chosen).clamp(min=LOGIT_FLOOR)).sum(-1)
    label = rows.logits.gather(-1, rows.labels.unsqueeze(-1)) - chosen
    return TokenLoss(others - weight.sum(-1) * label.squeeze(-1))


def dft(rows: TokenRows) -> TokenLoss:
    """DFT: -sg(pi(y)) log pi(y), cross-entropy weighted by the token's own probability."""
    weight = rows.logp.detach().exp()
    return TokenLoss(-weight * rows.logp, {"token_weight": weight})


def psft(
    rows: TokenRows,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """PSFT: PPO's clipped surrogate with advantage 1 on expert tokens. `extra`: old_logp.

    Args:
        clip_low: lower clip width; never binds, because the advantage is positive.
        clip_high: upper clip width; a ratio above 1 + clip_high has no gradient.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    ratio = (rows.logp - rows.extra["old_logp"]).clamp(-log_ratio_clamp, log_ratio_clamp).exp()
    loss = -ratio.minimum(ratio.clamp(1.0 - clip_low, 1.0 + clip_high))
    return TokenLoss(loss, {"ratio": ratio.detach(), "clipped": (ratio.detach() > 1.0 + clip_high).float()})


def old_policy_steps(step: int, *, psft_old_refresh: int = 8) -> range:
    """The steps whose old_logp is computed before the 0-based optimizer step `step`; empty where it is there already.

    Args:
        step: of the optimizer.
        psft_old_refresh: optimizer steps for which PSFT's old policy stays the same.
    """
    return range(step, step + psft_old_refresh) if step % psft_old_refresh == 0 else range(0)
