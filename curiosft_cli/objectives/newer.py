"""Supervised objectives published after the paper: EAFT, ASFT, SED-SFT and DEFT.

Each changes how much the cross-entropy of a token counts; ASFT also holds the student near its start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from curiosft_cli.objectives.baselines import kl_divergence
from curiosft_cli.objectives.tokens import TokenLoss, TokenRows, top_k_entropy, top_k_logits

if TYPE_CHECKING:
    from torch import Tensor


def eaft(rows: TokenRows, *, alpha: float = 1.0, topk: int = 20, normalizer: float = 3.0) -> TokenLoss:
    """EAFT (arXiv 2601.02151): -sg(H_k / c)^a log pi(y), with H_k the renormalised entropy of the k largest logits.

    Args:
        alpha: a; 0 is plain SFT.
        topk: k.
        normalizer: c, nats; ln 20 is 2.996 (the authors' code).
    """
    assert rows.logits is not None
    entropy = top_k_entropy(rows.logits.detach(), topk)
    weight = (entropy / normalizer) ** alpha
    return TokenLoss(-weight * rows.logp, {"token_weight": weight, "entropy_topk_nats": entropy})


def asft(rows: TokenRows, *, alpha: float = 0.1) -> TokenLoss:
    """ASFT (arXiv 2509.23753): -sg(pi(y)) log pi(y) + a KL(base || pi) over the whole vocabulary.

    Args:
        alpha: a; 0 is DFT.
    """
    assert rows.logits is not None and rows.ref_logits is not None
    weight = rows.logp.detach().exp()
    divergence = kl_divergence(rows.ref_logits.log_softmax(-1), rows.logits.log_softmax(-1))
    return TokenLoss(-weight * rows.logp + alpha * divergence, {"token_weight": weight, "kl": divergence.detach()})


def sed_sft(rows: TokenRows, *, coef: float = 1.0, topk: int = 2, threshold: float = 0.95) -> TokenLoss:
    """SED-SFT (arXiv 2602.07464): -log pi(y) + l M (pi(y) - 1/2)^2, M = 1 where the k likeliest tokens are unsure.

    Args:
        coef: l; the term has a gradient, M has none.
        topk: k.
        threshold: M = 1 below this probability of the k likeliest tokens together.
    """
    assert rows.logits is not None
    mass = top_k_logits(rows.logits.detach().log_softmax(-1), topk).exp().sum(-1)
    selected = (mass < threshold).to(mass.dtype)
    p = rows.logp.exp()
    weight = 1.0 + coef * selected * p.detach() * (1.0 - 2.0 * p.detach())
    return TokenLoss(
        -rows.logp + coef * selected * (p - 0.5).square(),
        {"token_weight": weight, "selected": selected, "top_mass": mass},
    )


def deft(
    rows: TokenRows,
    *,
    focus: Literal["concentration", "cayley"] = "concentration",
    focus_min: float = 0.001,
    focus_max: float = 1.0,
    epsilon: float = 1e-6,
) -> TokenLoss:
    """DEFT (arXiv 2602.11424): the deformed logarithm (1 - pi(y)^g) / g, with g without gradient.

    g = 0 is cross-entropy, g = 1 is 1 - pi(y). `extra`: focus_floor for "cayley".

    Args:
        focus: g. "concentration": sum_v pi_v^2; "cayley": f + (1 - f) p / (2 - p), with f of `cayley_floor`.
        focus_min: lowest g of "cayley" (the authors' code).
        focus_max: highest g of "cayley" (the authors' code).
        epsilon: added to g in the divisor (the authors' code; they have 1e-8 for "cayley").
    """
    if focus == "concentration":
        assert rows.logits is not None
        g = rows.logits.detach().softmax(-1).square().sum(-1)
    else:
        p, floor = rows.logp.detach().exp(), rows.extra["focus_floor"]
        g = (floor + (1.0 - floor) * p / (2.0 - p)).clamp(focus_min, focus_max)
    # expm1: for a small g, 1 - p^g would be the difference of two equal numbers.
    scaled = g * rows.logp
    weight = scaled.detach().exp() * g / (g + epsilon)
    return TokenLoss(-scaled.expm1() / (g + epsilon), {"token_weight": weight, "focus": g})


def cayley_floor(logp: Tensor, *, floor_fraction: float = 0.5) -> Tensor:
    """f of DEFT's "cayley", the same for all tokens: [N], a share of their mean probability.

    Args:
        logp: [N] nats, log pi(y) of every counted token of the optimizer step, on all ranks. Empty gives empty.
        floor_fraction: the share (the authors' code).
    """
    return (floor_fraction * logp.exp().mean()).expand_as(logp)


def deft_needs(params: Mapping[str, Any]) -> frozenset[str]:
    return frozenset({"logits"} if params["focus"] == "concentration" else {"focus_floor"})
