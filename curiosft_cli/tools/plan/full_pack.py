"""A full pack of one process, measured: on fake tensors what a step with it needs, on real ones how long it takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from curiosft_cli.tools.plan.machines import CPU, Setting

if TYPE_CHECKING:
    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.run.sections import Training
    from curiosft_cli.train.fake_step import StepCost


@dataclass(frozen=True)
class FullPack:
    """A full pack of one process, and what trains on it.

    Attributes:
        what: arguments of `prepared`; `how` alike.
        tokens: of the pack.
        on_cpu: it is trained on a CPU.
    """

    what: tuple[Any, ...]
    how: dict[str, Any]
    tokens: int
    on_cpu: bool

    @cached_property
    def cost(self) -> StepCost:
        """What a step with it needs."""
        from curiosft_cli.train.fake_step import CpuShapes, step_cost
        from curiosft_cli.train.head.kernels import Kernels

        return step_cost(*self.what, kernels=CpuShapes() if self.on_cpu else Kernels(), **self.how)

    def seconds(self, beside: int) -> dict[str, float]:
        """Of a processor, by phase: steps of models with few layers are run, while `beside` other cores work."""
        from curiosft_cli.train.fake_step import step_seconds
        from curiosft_cli.train.head.cpu_kernels import CpuKernels

        return step_seconds(*self.what, kernels=CpuKernels(), beside=beside, **self.how)


def full_pack(
    settings: Training, shape: Any, objective: BoundObjective, setting: Setting, rows: int, row: int
) -> FullPack:
    """The pack of a stage, of average rows where those of a real pack are not known.

    Args:
        settings: `[sft]` or `[rl]`.
        shape: transformers configuration of the model.
        objective: with its parameters bound.
        setting: what is planned for.
        rows: of one process in a step.
        row: tokens of one.
    """
    import torch

    from curiosft_cli.train.cpu_attention import register_cpu_attention

    in_pack = max(1, min(rows, settings.max_tokens_per_batch // row))
    lengths = setting.pack or ((setting.prompt_tokens, row - setting.prompt_tokens),) * in_pack
    dtype, on_cpu = dtype_of(settings, setting), setting.name == CPU
    attention = register_cpu_attention() if on_cpu and dtype == torch.bfloat16 else None
    how = {"dtype": dtype, "attention": attention, "accumulates": rows > len(lengths)}
    return FullPack((shape, settings, objective, lengths), how, sum(map(sum, lengths)), on_cpu)


def dtype_of(settings: Training, setting: Setting) -> Any:
    """Torch's type of the products."""
    import torch

    from curiosft_cli.train.load import compute_dtype

    if setting.name == CPU:
        return compute_dtype(settings.precision, CPU)
    return torch.float32 if settings.precision == "float32" else torch.bfloat16
