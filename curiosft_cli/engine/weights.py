"""The hand-over of weights from the trainer to an engine, and the check that it arrived."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curiosft_cli.run.errors import GUARD, CurioError

if TYPE_CHECKING:
    from torch import Tensor, dtype, nn

HANDOVER_TOLERANCE = {"float32": 0.02, "bfloat16": 0.1}
"""Largest mean |engine - trainer| in nats that rounding explains, by the engine's dtype (our choice)."""


def full_state(model: nn.Module, dtype: dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of the model's state dict whole, one at a time, in the order of its name.

    Sharded tensors are gathered, which is a collective: all ranks walk together, and each holds one full tensor
    at a time. A tied head comes as `lm_head.weight` too, since an engine may hold a copy of its own.

    Args:
        model: without wrappers that rename parameters (data parallel, compiled).
        dtype: cast floating-point tensors before they are gathered; None sends them as they are.
    """
    from torch.distributed.tensor import DTensor

    state = model.state_dict()
    for name in sorted(state):
        tensor = state[name].detach()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@dataclass(frozen=True)
class Handover:
    """|engine - trainer| log-probability over the tokens compared, in nats."""

    mean: float
    max: float


def check_handover(
    engine_logprobs: Sequence[float],
    trainer_logprobs: Sequence[float],
    tolerance: float = HANDOVER_TOLERANCE["float32"],
) -> Handover:
    """Compare the two sides' log-probabilities of the same tokens, in nats, at temperature 1.

    A head that was not sent, a stale prefix cache, or weights under wrong names all show here.

    Raises:
        CurioError: the mean difference is beyond `tolerance`, or not a number (exit code 4).
    """
    gaps = [abs(ours - theirs) for ours, theirs in zip(engine_logprobs, trainer_logprobs, strict=True)]
    handover = Handover(mean=math.fsum(gaps) / len(gaps), max=max(gaps))
    if not handover.mean <= tolerance:  # also true for NaN
        raise CurioError(
            f"the engine does not hold the trainer's weights: log-probabilities of {len(gaps)} tokens differ by "
            f"{handover.mean:.3g} nats on average (most {handover.max:.3g}, legal up to {tolerance:g})",
            "Give engine and trainer the same dtype and model settings; if they have, the weight hand-over is broken",
            exit_code=GUARD,
        )
    return handover
