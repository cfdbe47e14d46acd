"""How one pass over the head treats the logits, and what it computes beside the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from curiosft_cli.objectives.temperature import TemperatureSettings


@dataclass(frozen=True)
class HeadPass:
    """Settings of one pass over the head.

    Attributes:
        temperature: the student's logits are divided by it (RL; supervised stages use 1).
        top_p: also compute `kept_mass`, the probability of the nucleus: the smallest set of most likely tokens whose
            probability reaches `top_p` (RL). None computes no nucleus.
        entropy: also compute the entropy of the full vocabulary, in nats.
        reference: hidden states [N, H] and head weight [V, H] of the frozen base model, for objectives that read its
            logits. Only a training pass reads it.
        self_teacher: how the student itself is tempered, for a teacher without weights of its own: the training pass
            then computes `teacher_logp` from the student's logits, without a gradient. Only a training pass reads it.
    """

    temperature: float = 1.0
    top_p: float | None = None
    entropy: bool = False
    reference: tuple[Tensor, Tensor] | None = None
    self_teacher: TemperatureSettings | None = None
