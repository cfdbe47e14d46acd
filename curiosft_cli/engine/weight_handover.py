"""The trainer's weights for an engine, and the check that the engine has them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from curiosft_cli.run.errors import GUARD, CurioError

if TYPE_CHECKING:
    from torch import Tensor, dtype

HANDOVER_TOLERANCE = {"float32": 0.02, "bfloat16": 0.1}
"""Largest mean |engine - trainer| in nats that rounding explains, by the engine's dtype (our choice)."""


class Weights(Protocol):
    """The trainer's tensors by name, one whole tensor at a time, as often as they are walked."""

    def __iter__(self) -> Iterator[tuple[str, Tensor]]: ...

    def shapes(self) -> list[tuple[str, dtype, tuple[int, ...]]]:
        """Name, dtype and whole shape of each tensor, in the same order."""
        ...


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
