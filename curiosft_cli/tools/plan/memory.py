"""From what a step costs a process that holds the whole model to the memory of one device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from curiosft_cli.train.fake_step import BACKWARD, INPUTS, UPDATE
from curiosft_cli.train.size import BFLOAT16, FLOAT32

if TYPE_CHECKING:
    from curiosft_cli.train.fake_step import StepCost
    from curiosft_cli.train.size import Size

SHARDED = ("weights", "gradients", "optimizer", "teacher")
GATHERED_LAYERS = 2
"""The layer that computes, and the next one, which is gathered ahead."""

Terms = dict[str, float]


def phases_of_device(cost: StepCost, size: Size, ranks: int, *, sharded: bool, teacher: bool) -> dict[str, Terms]:
    """Bytes by term at the peak of each phase, on one of `ranks` devices.

    Args:
        cost: of a step in a process with the whole model.
        size: of the model.
        ranks: devices over which the model is sharded, or that hold a copy each.
        sharded: whether layers are sharded (`fully_shard`: layers are gathered in bfloat16, the rest in float32).
        teacher: whether a copy of the weights takes the student's place in the phase of the inputs.
    """
    found = {}
    for phase, whole in cost.peaks.items():
        terms: Terms = dict(whole)
        if sharded:
            terms |= {name: terms[name] / ranks for name in SHARDED if name in terms}
            terms |= _gathered(size, phase)
            # The copies of the layers are what is gathered; those of the head stay.
            terms["copies for products"] = max(
                0.0, terms.get("copies for products", 0.0) - size.layer * size.layers * BFLOAT16
            )
            if teacher and phase.startswith(INPUTS):
                terms["weights set aside"] = size.all * FLOAT32 / ranks
        elif ranks > 1:
            terms["buckets of gradients"] = size.all * FLOAT32
        found[phase] = terms
    return found


def _gathered(size: Size, phase: str) -> Terms:
    """Whole weights and gradients that exist for a moment."""
    if phase == UPDATE:
        return {}
    layers = GATHERED_LAYERS * size.layer
    terms = {"gathered weights": float(size.rest * FLOAT32 + layers * BFLOAT16)}
    if phase.startswith(BACKWARD):
        # Of the rest once as gradient and once as what is sent; of a layer in bfloat16 and in float32.
        terms["gathered gradients"] = float(2 * size.rest * FLOAT32 + size.layer * (BFLOAT16 + FLOAT32))
    return terms


def largest(phases: Mapping[str, Terms]) -> tuple[str, Terms]:
    """The phase that needs most, and its terms."""
    return max(phases.items(), key=lambda item: sum(item[1].values()))
