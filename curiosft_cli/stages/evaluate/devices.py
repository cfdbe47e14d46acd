"""How the GPUs are shared out: one model over several of them where it needs that, and copies of it on the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.engine.open_engine import EngineKind, open_engine
from curiosft_cli.engine.vllm_engines.copies import CopiesEngine
from curiosft_cli.engine.vllm_engines.embedded import vllm_installed
from curiosft_cli.run.errors import CurioError

if TYPE_CHECKING:
    from curiosft_cli.engine.base import TokenSampler
    from curiosft_cli.engine.spec import EngineSpec
    from curiosft_cli.run.sections import Config, Eval

PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size")


def uses_vllm(settings: Eval) -> bool:
    """Whether `eval.engine` is vLLM on this machine."""
    return settings.engine == "vllm" or (settings.engine == "auto" and vllm_installed())


def open_on_all_devices(kind: EngineKind, config: Config, spec: EngineSpec, log_file: Path) -> TokenSampler:
    """An engine on every GPU of this machine, or `eval.copies` engines, as one sampler.

    Args:
        kind: of engine.
        config: of the run.
        spec: the model.
        log_file: of the server, if there is one.

    Raises:
        CurioError: the engine or the devices do not allow it.
    """
    import torch

    settings = config.eval
    if not uses_vllm(settings):
        return open_engine(kind, spec)
    devices = torch.cuda.device_count()
    each, copies = 1, settings.copies or 1
    for name in PARALLEL:
        each *= int(spec.vllm.get(name, 1))
    if devices:
        if not spec.vllm.keys() & set(PARALLEL):
            each = _devices_of_one(config, spec, devices)
            spec = replace(spec, vllm={**spec.vllm, "tensor_parallel_size": each})
        copies = settings.copies or max(1, devices // each)
        if each * copies > devices:
            raise CurioError(
                f"{copies} copies of the model on {each} GPUs each need {each * copies} GPUs, there are {devices}",
                f"Lower eval.copies or eval.vllm.{PARALLEL[0]}.",
            )
    return CopiesEngine(spec, copies, log_file=log_file) if copies > 1 else open_engine(kind, spec)


def _devices_of_one(config: Config, spec: EngineSpec, devices: int) -> int:
    import torch

    from curiosft_cli.run.device import resolve_dtype
    from curiosft_cli.train.load import load_config
    from curiosft_cli.train.size import count_parameters

    shape = load_config(str(spec.model), config.model)
    size = getattr(torch, resolve_dtype(spec.dtype)).itemsize * count_parameters(shape)
    memory = int(torch.cuda.get_device_properties(0).total_memory * spec.gpu_memory_utilization)
    return devices_of_one(size, shape.get_text_config().num_attention_heads, devices, memory)


def devices_of_one(weights: int, heads: int, devices: int, memory: int, *, share: float = 0.6) -> int:
    """The fewest GPUs on which one copy fits.

    Args:
        weights: bytes of the model.
        heads: of its attention; the number of GPUs must divide it.
        devices: GPUs that there are.
        memory: bytes that the engine may use on each.
        share: of the memory that the weights may take; the key-value cache needs the rest (our choice).

    Returns:
        The largest possible number if even that is too few.
    """
    possible = [number for number in range(1, devices + 1) if heads % number == 0]
    return next((number for number in possible if weights <= number * memory * share), possible[-1])
