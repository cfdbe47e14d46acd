"""CurioSFT: cross-entropy plus self-exploratory distillation from a tempered teacher (Eq. 5 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from curiosft_cli.objectives.baselines import kl_of_kind
from curiosft_cli.objectives.tokens import TokenLoss, TokenRows, tempered_logp

if TYPE_CHECKING:
    from torch import Tensor


def self_distillation(logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """1/2 (log pi_theta(y) - log pi_tch(y; tau))^2 [N], on the expert token alone (Eq. 5)."""
    return 0.5 * (logp - teacher_logp).square()


def token_weight(logp: Tensor, teacher_logp: Tensor, alpha: float) -> Tensor:
    """The weight [N] that makes cross-entropy's gradient CurioSFT's: 1 - alpha (log pi_theta - log pi_tch).

    Negative where the student is surer of the token than the teacher by more than 1 / alpha nats.
    """
    return (1.0 - alpha * (logp - teacher_logp)).detach()


def curio(rows: TokenRows, *, alpha: float = 1.0) -> TokenLoss:
    """-log pi(y) + alpha * L_SED (Eq. 6). `extra`: teacher_logp, at the temperature of Eq. 8.

    Args:
        alpha: weight of the distillation term; 0 is plain SFT.
    """
    teacher = rows.extra["teacher_logp"]
    distillation = self_distillation(rows.logp, teacher)
    stats = {
        "sed": distillation.detach(),
        "gap_nats": (rows.logp - teacher).detach(),
        "token_weight": token_weight(rows.logp, teacher, alpha),
    }
    return TokenLoss(-rows.logp + alpha * distillation, stats)


def curio_distribution(
    rows: TokenRows, *, alpha: float = 1.0, kl_kind: Literal["reverse", "forward"] = "reverse"
) -> TokenLoss:
    """-log pi(y) + alpha KL over the whole vocabulary, in place of Eq. 5's expert token (our ablation).

    `ref_logits` are the teacher's; `extra`: teacher_tau, the temperature of Eq. 8.

    Args:
        alpha: weight of the divergence; 0 is plain SFT.
        kl_kind: "reverse" KL(pi_theta || pi_tch), which Eq. 5 estimates from one token; "forward"
            KL(pi_tch || pi_theta).
    """
    assert rows.logits is not None and rows.ref_logits is not None
    teacher = tempered_logp(rows.ref_logits, rows.extra["teacher_tau"])
    divergence = kl_of_kind(kl_kind, rows.logits.log_softmax(-1), teacher)
    target = teacher.gather(-1, rows.labels.unsqueeze(-1)).squeeze(-1)
    stats = {"kl": divergence.detach(), "gap_nats": (rows.logp - target).detach()}
    return TokenLoss(-rows.logp + alpha * divergence, stats)


def mix(phi: Tensor, theta: Tensor, student_weight: float) -> Tensor:
    """Teacher parameters after a synchronisation: (1 - s) phi + s theta (Algorithm 1, line 17)."""
    return phi.lerp(theta, student_weight)


def sync_due(step: int, every: int) -> bool:
    """Whether the teacher is synchronised after optimizer step `step`, counted from 1 (line 16)."""
    return step % every == 0
