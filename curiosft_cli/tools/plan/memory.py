"""From what a step costs a process that holds the whole model to the memory of one device, and to what it sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curiosft_cli.train.fake_step import BACKWARD, INPUTS, UPDATE
from curiosft_cli.train.size import FLOAT32, Size

if TYPE_CHECKING:
    from curiosft_cli.train.fake_step import StepCost

SENDING = "end of the backward pass"
SHARDED = ("weights", "gradients", "optimizer", "teacher")
GATHERED_LAYERS = 2
"""The layer that computes, and the next one, which is gathered ahead."""

Terms = dict[str, float]


@dataclass(frozen=True)
class Shards:
    """How a model lies on its devices.

    Attributes:
        ranks: devices.
        parts: into how many one copy of the model is cut; None: each device holds a whole copy.
        offload: the parts are in main memory while they are not in use.
        width: bytes of a number in which a layer is gathered.
    """

    ranks: int
    parts: int | None
    offload: bool
    width: int


def phases_of_device(cost: StepCost, size: Size, shards: Shards, *, teacher: bool, adapters: bool) -> dict[str, Terms]:
    """Bytes by term at the peak of each phase, on one device.

    Args:
        cost: of a step in a process with the whole model.
        size: of the model.
        shards: where it lies.
        teacher: whether a copy of the weights takes the student's place in the phase of the inputs.
        adapters: whether they alone are trained.
    """
    trained = _adapters(cost, size) if adapters else size
    found = {}
    for phase, whole in cost.peaks.items():
        terms: Terms = dict(whole)
        if shards.parts:
            terms |= {name: terms[name] / shards.parts for name in SHARDED if name in terms}
            if teacher and phase.startswith(INPUTS):
                terms["weights set aside"] = size.all * FLOAT32 / shards.parts
            if shards.offload:
                terms = {name: held for name, held in terms.items() if name not in (*SHARDED, "weights set aside")}
            terms |= _gathered(size, trained, shards.width, phase)
            # The copies of the layers are what is gathered; those of the head stay.
            copies = terms.get("copies for products", 0.0) - size.layer * size.layers * shards.width
            terms["copies for products"] = max(0.0, copies)
        elif shards.ranks > 1:
            terms["buckets of gradients"] = trained.all * FLOAT32
        found[phase] = terms
    if shards.parts:
        # Embedding and head are sent last, when the activations are gone: once as gradient and once as what is sent.
        state = {name: held for name, held in found[UPDATE].items() if name in SHARDED}
        found[SENDING] = state | {"gathered gradients": float(2 * trained.rest * FLOAT32)}
    return found


def sent_bytes(
    cost: StepCost, size: Size, shards: Shards, packs: int, *, adapters: bool, scored: bool = False
) -> tuple[float, float]:
    """Bytes that one device sends in a step: to the holders of the other parts, and to those of the same part.

    Parts are gathered anew for each pass over a pack: forward, backward, that of a teacher, that which scores. The
    gradients of each pack are summed over the parts. Whole copies sum theirs once in a step. In a ring of n a device
    sends (n - 1) / n of a tensor to gather it or to scatter its sum, and twice as much to sum it for all.

    Args:
        cost: of a step in a process with the whole model; `size`, `shards` and `adapters` as in `phases_of_device`.
        packs: of one device in a step.
        scored: each token is scored once more before the step.
    """
    gradients = (_adapters(cost, size) if adapters else size).all * FLOAT32
    parts = shards.parts or 1
    copies = shards.ranks // parts
    passes = 2 + bool(cost.flops.get(INPUTS)) + scored
    gathered = size.rest * FLOAT32 + size.layers * size.layer * shards.width
    among_parts = (1 - 1 / parts) * packs * (passes * gathered + gradients)
    return among_parts, 2 * (1 - 1 / copies) * (packs if shards.parts else 1) * gradients / parts


def _adapters(cost: StepCost, size: Size) -> Size:
    """What is trained where adapters alone are: the gradients say how much; all of it is in the layers."""
    return Size(round(cost.peaks[UPDATE]["gradients"] / FLOAT32 / size.layers), size.layers, 0)


def _gathered(size: Size, trained: Size, width: int, phase: str) -> Terms:
    """Whole weights and gradients that exist for a moment."""
    if phase == UPDATE:
        return {}
    terms = {"gathered weights": float(size.rest * FLOAT32 + GATHERED_LAYERS * size.layer * width)}
    if phase.startswith(BACKWARD):
        # That of a layer as it was gathered and in float32. That of a head waits for the end of the pass; with the
        # gradient of the embedding, or of a tied head, the pass itself ends.
        head = trained.rest - trained.embedding
        terms["gathered gradients"] = float(head * FLOAT32 + trained.layer * (width + FLOAT32))
    return terms


def largest(phases: Mapping[str, Terms]) -> tuple[str, Terms]:
    """The phase that needs most, and its terms."""
    return max(phases.items(), key=lambda item: sum(item[1].values()))
