"""Gradients that the training pass gives to autograd itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class LabelValues(torch.autograd.Function):
    """log pi(y) [r] and the entropy [r] as functions of the logits z [r, V], from values that are computed already.

    With p = softmax(z): d log p_y / d z_j = [j = y] - p_j, and dH / d z_j = -p_j (log p_j + H).
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, labels: Tensor, probabilities: Tensor, logp: Tensor, entropy: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """`entropy` is None where the objective does not read it."""
        ctx.values = z, labels, probabilities, logp, entropy
        return logp.clone(), None if entropy is None else entropy.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        z, labels, probabilities, logp, entropy = ctx.values
        (by_logp, by_entropy), place = upstream, labels[:, None]
        if entropy is None:
            by_z = probabilities * -by_logp[:, None]
        else:
            # log p_j = z_j - (z_y - log p_y)
            shift = entropy - (z.gather(1, place).squeeze(1) - logp)
            by_z = z * -by_entropy[:, None]
            by_z.sub_((by_logp + by_entropy * shift)[:, None]).mul_(probabilities)
        return by_z.scatter_add_(1, place, by_logp[:, None]), None, None, None, None


class Attached(torch.autograd.Function):
    """Gives autograd the gradients that exist already, multiplied by the gradient of the loss; only once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        loss: Tensor,
        by_hidden: Tensor | None,
        by_weight: Tensor | None,
    ) -> Tensor:
        ctx.gradients = [by_hidden, by_weight]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place and only once: another [V, H] tensor would cost as much memory as the gradient itself.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the head's gradients are used up: a second backward needs a second forward")
        scaled = [None if grad is None else grad.mul_(upstream[0]) for grad in gradients]
        return scaled[0], scaled[1], None, None, None
