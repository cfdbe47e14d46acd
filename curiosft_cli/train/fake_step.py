"""One optimizer step without memory: our own model, head, teacher, backward pass and optimizer on fake tensors.

The layers of a model are alike, so two small numbers of layers are measured and the rest follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from curiosft_cli.train.attention import register_packed_attention
from curiosft_cli.train.batches import Pack, make_pack
from curiosft_cli.train.encode import Row
from curiosft_cli.train.head.kernels import Kernels
from curiosft_cli.train.lora import add_adapters
from curiosft_cli.train.meter import Meter, Operation
from curiosft_cli.train.optim import make_optimizer
from curiosft_cli.train.size import with_layers
from curiosft_cli.train.stats import StepStats
from curiosft_cli.train.student import Student
from curiosft_cli.train.suppliers import Suppliers, open_suppliers

if TYPE_CHECKING:
    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.run.sections import Lora, Sft, Training

Key = TypeVar("Key")
FEW_LAYERS = (2, 4)
INPUTS, FORWARD, BACKWARD, UPDATE = "inputs", "forward", "backward", "update"
HEAD, LATE = ", head", ", second half"
"""Phases are cut in two where their peak may be at either end: the bytes at each end are a straight line in the number
of layers, the larger of the two is not. In the forward pass the copies for products are freed before the head. In the
backward pass activations are freed while gradients are made."""


@dataclass(frozen=True)
class StepCost:
    """What one step with one pack costs one process that holds the whole model.

    Attributes:
        peaks: bytes by term at the largest sum, for each phase of the step.
        flops: floating-point operations of the products, for each phase.
        operations: how often each is done in each phase. What works on all layers at a time is another operation with
            each number of layers; only sums over all operations are right.
    """

    peaks: Mapping[str, Mapping[str, float]]
    flops: Mapping[str, float]
    operations: Mapping[str, Mapping[Operation, float]]


@dataclass(frozen=True)
class CpuShapes(Kernels):
    """The passes over the vocabulary with the sizes of `cpu_kernels.py`, and without its shapes that values decide."""

    tile_logits: int = 2**19

    def guard_entropy(self, logits: Tensor, top: Tensor, guard: float, temperature: float) -> Tensor:
        return top.sum(-1)


def step_cost(
    shape: Any, settings: Training, objective: BoundObjective, lengths: Sequence[tuple[int, int]], **how: Any
) -> StepCost:
    """Measure the models with few layers, and draw the line to all layers. See `measure` for the arguments."""
    layers, measured = shape.get_text_config().num_hidden_layers, []
    for few in FEW_LAYERS:
        measured.append(measure(with_layers(shape, few), settings, objective, lengths, **how))
    share = (layers - FEW_LAYERS[0]) / (FEW_LAYERS[1] - FEW_LAYERS[0])
    first, second = measured
    return StepCost(
        _lines(first.peaks, second.peaks, share),
        _line(first.flops, second.flops, share),
        _lines(first.operations, second.operations, share),
    )


def measure(
    shape: Any,
    settings: Training,
    objective: BoundObjective,
    lengths: Sequence[tuple[int, int]],
    *,
    dtype: torch.dtype,
    kernels: Kernels,
    attention: str | None = None,
    accumulates: bool = False,
) -> StepCost:
    """Run one step on fake tensors, after the one that makes the optimizer's moments.

    Args:
        shape: transformers configuration of the model.
        settings: `[sft]` or `[rl]`.
        objective: with its parameters bound.
        lengths: tokens of (prompt, supervised response) of each row of the pack.
        dtype: of the products.
        kernels: the head's passes over the vocabulary; no shape of theirs may depend on a value.
        attention: its name in transformers; None is row by row.
        accumulates: the step has several packs, so the gradients of the packs before are there.
    """
    from transformers import AutoModelForCausalLM

    shape._attn_implementation = attention or register_packed_attention()
    meter = Meter()
    with FakeTensorMode(), meter:
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32).train()
        if settings.lora.rank:
            _add_fake_adapters(model, settings.lora)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        student = Student(model, chunk=settings.head_chunk, compute_dtype=dtype, kernels=kernels)
        _name_terms(meter, model)
        optimizer = make_optimizer(model, settings)
        rows = [Row((0,) * prompt, (0,) * response) for prompt, response in lengths]
        pack = make_pack(rows, range(len(rows)), "cpu")
        meter.term = "teacher"
        suppliers = _suppliers(objective, settings, student, pack)
        _make_moments(meter, optimizer, keep_gradients=accumulates)
        with meter.phase(INPUTS):
            extra = _extra(objective, suppliers, pack)
            head_pass = suppliers.head_pass(pack)
        weights = tuple(torch.ones(len(pack.labels)) for _ in objective.terms)
        with meter.phase(FORWARD):
            loss, seen = student(pack, objective, extra, weights, head_pass)
        with meter.phase(BACKWARD):
            loss.backward()
        del loss, seen, extra, head_pass
        with meter.phase(UPDATE):
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
    return StepCost(dict(meter.peaks), dict(meter.flops), dict(meter.operations))


def _add_fake_adapters(model: Any, settings: Lora) -> None:
    """peft moves new adapters to the device of their layer, which fake tensors refuse, so they are made there anew."""
    with torch.device("meta"):
        add_adapters(model, settings, seed=0)
    for part in model.modules():
        for name, weight in part._parameters.items():
            if weight is not None and weight.device.type == "meta":
                part._parameters[name] = torch.nn.Parameter(torch.empty_like(weight, device="cpu"))


def _name_terms(meter: Meter, model: Any) -> None:
    """Tell the meter what is what: weights, gradients, and logits from where the transformer ends."""
    meter.name("weights", model.parameters())
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda found: meter.name("gradients", [found.grad]))
    body = model.get_decoder()
    middle = next(parameter for parameter in body.layers[len(body.layers) // 2].parameters() if parameter.requires_grad)
    middle.register_post_accumulate_grad_hook(lambda _: meter.enter(BACKWARD + LATE))
    body.register_forward_pre_hook(lambda *_: setattr(meter, "term", "activations"))

    def to_head(*_: Any) -> None:
        meter.term = "logits"
        meter.enter(meter.current + HEAD)

    body.register_forward_hook(to_head)


def _make_moments(meter: Meter, optimizer: torch.optim.Optimizer, *, keep_gradients: bool) -> None:
    """The optimizer's state after its first step, and its gradients if they are wanted."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    meter.term = "optimizer"
    optimizer.step()
    if keep_gradients:
        meter.name("gradients", [parameter.grad for parameter in parameters])
    else:
        optimizer.zero_grad(set_to_none=True)
    meter.term = "activations"


def _suppliers(objective: BoundObjective, settings: Training, student: Student, pack: Pack) -> Suppliers:
    """The real ones of sft; rl has none."""
    if not hasattr(settings, "teacher"):
        return Suppliers([])
    sft: Sft = settings  # ty: ignore[invalid-assignment]  # only [sft] has a teacher
    alone = SimpleNamespace(num_processes=1, device=torch.device("cpu"))
    loop: Any = SimpleNamespace(student_module=student, stats=StepStats(), accelerator=alone)
    return open_suppliers(objective, sft, loop, lambda _: [pack], total=2)


def _extra(objective: BoundObjective, suppliers: Suppliers, pack: Pack) -> dict[str, Tensor]:
    """What the objective reads; what no supplier gives (of rl) is as large as the labels and costs nothing."""
    [extra] = suppliers.supply(0, [pack])
    for need in objective.needs - {"entropy", "logits", "ref_logits"} - extra.keys():
        extra[need] = torch.zeros(len(pack.labels))
    return extra


def _lines(
    first: Mapping[str, Mapping[Key, float]], second: Mapping[str, Mapping[Key, float]], share: float
) -> dict[str, dict[Key, float]]:
    return {phase: _line(first[phase], second[phase], share) for phase in first}


def _line(first: Mapping[Key, float], second: Mapping[Key, float], share: float) -> dict[Key, float]:
    return {key: first.get(key, 0) + share * (second.get(key, 0) - first.get(key, 0)) for key in {**first, **second}}
