"""One optimizer step of models with few layers: our own model, head, teacher, backward pass and optimizer.

On fake tensors it says what a step needs, without memory; on real ones how long it takes on this machine's CPU. The
layers of a model are alike, so two small numbers of layers are measured and the rest follows.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
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
from curiosft_cli.train.meter import Meter, Stopwatch
from curiosft_cli.train.optim import make_optimizer
from curiosft_cli.train.size import with_layers
from curiosft_cli.train.stats import StepStats
from curiosft_cli.train.student import Student
from curiosft_cli.train.suppliers import Suppliers, open_suppliers

if TYPE_CHECKING:
    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.run.sections import Lora, Sft, Training

Key = TypeVar("Key")
FEW_LAYERS, TIMED_LAYERS = (2, 4), (2, 6)
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
        moved: bytes that all else reads and writes, for each phase.
    """

    peaks: Mapping[str, Mapping[str, float]]
    flops: Mapping[str, float]
    moved: Mapping[str, float]


@dataclass(frozen=True)
class CpuShapes(Kernels):
    """The passes over the vocabulary with the sizes of `cpu_kernels.py`, and without its shapes that values decide."""

    tile_logits: int = 2**19

    def guard_entropy(self, logits: Tensor, top: Tensor, guard: float, temperature: float) -> Tensor:
        return top.sum(-1)


def step_cost(
    shape: Any, settings: Training, objective: BoundObjective, lengths: Sequence[tuple[int, int]], **how: Any
) -> StepCost:
    """Measure the models with few layers, and draw the line to all layers. See `prepared` for the arguments."""
    measured = [measure(with_layers(shape, few), settings, objective, lengths, **how) for few in FEW_LAYERS]
    first, second = measured
    share = _share(shape, *FEW_LAYERS)
    return StepCost(
        {phase: _line(first.peaks[phase], second.peaks[phase], share) for phase in first.peaks},
        _line(first.flops, second.flops, share),
        _line(first.moved, second.moved, share),
    )


def measure(shape: Any, *what: Any, **how: Any) -> StepCost:
    """Run one step on fake tensors, after the one that makes the optimizer's moments. See `prepared`."""
    meter = Meter()
    with FakeTensorMode(), meter:
        prepared(meter, shape, *what, **how)()
    return StepCost(dict(meter.peaks), dict(meter.flops), dict(meter.moved))


def step_seconds(shape: Any, *what: Any, beside: int = 0, at_least_s: float = 1.0, **how: Any) -> dict[str, float]:
    """Processor seconds of each phase of a step with one thread, with random weights. See `prepared`.

    Args:
        shape: transformers configuration of the model.
        what: see `prepared`; `how` alike.
        beside: other cores that work meanwhile, as in a training: cores slow each other.
        at_least_s: steps are repeated for so long, after one that warms up; medians count.
    """
    few, more = TIMED_LAYERS
    layers = shape.get_text_config().num_hidden_layers
    with one_thread(beside):
        second = _timed(with_layers(shape, min(more, layers)), at_least_s, *what, **how)
        if layers <= more:
            return second
        first = _timed(with_layers(shape, few), at_least_s, *what, **how)
    return _line(first, second, _share(shape, few, more))


@contextmanager
def one_thread(beside: int = 0, width: int = 1024) -> Generator[None]:
    """Compute in one thread, while `beside` others multiply matrices [width, width]."""
    threads, done = torch.get_num_threads(), threading.Event()

    def multiply() -> None:
        torch.set_num_threads(1)
        matrix = torch.ones(width, width)
        while not done.is_set():
            matrix @ matrix

    others = [threading.Thread(target=multiply, daemon=True) for _ in range(beside)]
    torch.set_num_threads(1)
    try:
        for other in others:
            other.start()
        yield
    finally:
        done.set()
        for other in others:
            other.join()
        torch.set_num_threads(threads)


def _timed(shape: Any, at_least_s: float, *what: Any, **how: Any) -> dict[str, float]:
    watch = Stopwatch()
    step = prepared(watch, shape, *what, **how)
    step()
    steps: list[dict[str, float]] = []
    while sum(sum(took.values()) for took in steps) < at_least_s:
        watch.took.clear()
        step()
        steps.append(dict(watch.took))
    return {phase: statistics.median(took[phase] for took in steps) for phase in steps[0]}


def prepared(
    watch: Meter | Stopwatch,
    shape: Any,
    settings: Training,
    objective: BoundObjective,
    lengths: Sequence[tuple[int, int]],
    *,
    dtype: torch.dtype,
    kernels: Kernels,
    attention: str | None = None,
    accumulates: bool = False,
) -> Callable[[], None]:
    """Build a model with random weights; return what does one step with it, after the one that makes the moments.

    Args:
        watch: is told of each phase.
        shape: transformers configuration of the model.
        settings: `[sft]` or `[rl]`.
        objective: with its parameters bound.
        lengths: tokens of (prompt, supervised response) of each row of the pack.
        dtype: of the products.
        kernels: the head's passes over the vocabulary; on fake tensors no shape of theirs may depend on a value.
        attention: its name in transformers; None is row by row.
        accumulates: the step has several packs, so the gradients of the packs before are there.
    """
    from transformers import AutoModelForCausalLM

    shape._attn_implementation = attention or register_packed_attention()
    model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32).train()
    if settings.lora.rank:
        _add_fake_adapters(model, settings.lora)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    student = Student(model, chunk=settings.head_chunk, compute_dtype=dtype, kernels=kernels)
    _name_terms(watch, model)
    optimizer = make_optimizer(model, settings)
    pack = _pack(shape.get_text_config().vocab_size, lengths)
    watch.term = "teacher"
    suppliers = _suppliers(objective, settings, student, pack)
    _make_moments(watch, optimizer, keep_gradients=accumulates)
    weights = tuple(torch.full((len(pack.labels),), 1 / len(pack.labels)) for _ in objective.terms)

    def step() -> None:
        with watch.phase(INPUTS):
            extra = _extra(objective, suppliers, pack)
            head_pass = suppliers.head_pass(pack)
        with watch.phase(FORWARD):
            loss, seen = student(pack, objective, extra, weights, head_pass)
        with watch.phase(BACKWARD, sums_in_place=True):
            loss.backward()
        del loss, seen, extra, head_pass
        with watch.phase(UPDATE):
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
        optimizer.zero_grad(set_to_none=not accumulates)

    return step


def _pack(vocabulary: int, lengths: Sequence[tuple[int, int]]) -> Pack:
    rows = []
    for row in lengths:
        prompt, response = (tuple(place % vocabulary for place in range(part)) for part in row)
        rows.append(Row(prompt, response))
    return make_pack(rows, range(len(rows)), "cpu")


def _add_fake_adapters(model: Any, settings: Lora) -> None:
    """peft moves new adapters to the device of their layer, which fake tensors refuse, so they are made there anew."""
    with torch.device("meta"):
        add_adapters(model, settings, seed=0)
    for part in model.modules():
        for name, weight in part._parameters.items():
            if weight is not None and weight.device.type == "meta":
                part._parameters[name] = torch.nn.Parameter(torch.zeros_like(weight, device="cpu"))


def _name_terms(meter: Meter | Stopwatch, model: Any) -> None:
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


def _make_moments(meter: Meter | Stopwatch, optimizer: torch.optim.Optimizer, *, keep_gradients: bool) -> None:
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


def _share(shape: Any, few: int, more: int) -> float:
    return (shape.get_text_config().num_hidden_layers - few) / (more - few)


def _line(first: Mapping[Key, float], second: Mapping[Key, float], share: float) -> dict[Key, float]:
    return {key: first.get(key, 0) + share * (second.get(key, 0) - first.get(key, 0)) for key in {**first, **second}}
