"""AdamW, its learning rate, and an update that a non-finite gradient cannot spoil."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from curiosft_cli.train.shards import whole

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import AdamW, Optimizer

    from curiosft_cli.run.sections import Training


def make_optimizer(model: nn.Module, settings: Training) -> AdamW:
    """AdamW over all trainable parameters, each decayed alike (the authors' configuration)."""
    import torch

    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        betas=settings.adam_betas,
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def cosine_lr(
    step: int,
    *,
    peak: float,
    warmup_steps: int,
    total_steps: float,
    min_ratio: float,
    warmup_start: float | None = None,
) -> float:
    """Learning rate of the 0-based step: linear warm-up to `peak`, then a cosine down to `min_ratio * peak`.

    Args:
        total_steps: where the cosine ends.
        warmup_start: share of the peak in step 0; the peak is reached in step `warmup_steps`. None: the warm-up starts
            at peak / `warmup_steps` and reaches the peak one step earlier.
    """
    if step < warmup_steps and warmup_start is not None:
        return peak * (warmup_start + (1 - warmup_start) * step / warmup_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def constant_lr(step: int, *, peak: float, warmup_steps: int) -> float:
    """Learning rate of the 0-based step: linear warm-up to `peak`, then constant."""
    return peak * min(1.0, (step + 1) / max(1, warmup_steps))


def clip_and_step(
    model: nn.Module,
    optimizer: Optimizer,
    learning_rate: float,
    max_grad_norm: float,
    skip_above: float | None = None,
) -> tuple[float, bool]:
    """Clip the global gradient norm and step; return the norm before clipping and whether a step was taken.

    A gradient that is not finite, or whose norm is above `skip_above`, is dropped on every rank: the norm is global, so
    all ranks decide alike.
    """
    from torch.nn.utils import clip_grad_norm_

    norm = float(whole(clip_grad_norm_(model.parameters(), max_grad_norm)))
    taken = math.isfinite(norm) and (skip_above is None or norm <= skip_above)
    if taken:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm, taken
