"""Start a training process: accelerate, the random state, and the guards against launches that lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.trackers import check_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.run.rundir import StageDir
    from curiosft_cli.run.sections import Config

T = TypeVar("T")


def start_accelerator(config: Config, stage: StageDir) -> Accelerator:
    """Open accelerate, check that the ranks really talk to each other, and seed every generator.

    Gradients are accumulated by the stage, not by accelerate, since sums are divided once by a global count.

    Raises:
        CurioError: see `refuse_plugins` and `check_launch`, or (exit code 3) a tracker's package is not installed.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, set_seed

    refuse_plugins(os.environ)
    check_trackers(config.log.trackers)
    group = InitProcessGroupKwargs(timeout=timedelta(seconds=config.launch.exchange_limit_s))
    if config.launch.offload and torch.cuda.is_available():
        # What is offloaded is reduced and gathered in main memory, which NCCL does not do.
        group.backend = "cuda:nccl,cpu:gloo"
    accelerator = Accelerator(
        log_with=list(config.log.trackers) or None, project_dir=stage.path, kwargs_handlers=[group]
    )
    found = int(accelerator.reduce(torch.ones(1, device=accelerator.device), "sum").item())
    check_launch(accelerator, os.environ, found)
    set_seed(config.run.seed)
    return accelerator


def refuse_plugins(environment: Mapping[str, str]) -> None:
    """Refuse what `accelerate launch` was told, by a flag or a configuration file, to do with the model.

    Raises:
        CurioError: one of accelerate's plugins is on.
    """
    for plugin in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if environment.get(f"ACCELERATE_USE_{plugin}", "false").lower() in ("1", "true"):
            raise CurioError(
                f"accelerate was told to use its {plugin} plugin, by a flag or by its configuration file",
                "Leave the plugin out: launch.shard says how the model is sharded.",
            )


def check_launch(accelerator: Accelerator, environment: Mapping[str, str], found: int) -> None:
    """Refuse a launch that is not the one configured; `found` processes took part in an all-reduce.

    Raises:
        CurioError: another number of processes than the launcher promised, or a mixed precision of accelerate's, which
            would come on top of ours.
    """
    promised, kind = int(environment.get("WORLD_SIZE", "1")), str(accelerator.distributed_type).rpartition(".")[2]
    if not promised == accelerator.num_processes == found:
        raise CurioError(
            f"the launcher promised {promised} processes, accelerate sees {accelerator.num_processes}, "
            f"and {found} answer each other ({kind})",
            "Set launch.processes, or give accelerate's own flags after --.",
        )
    if accelerator.mixed_precision != "no":
        raise CurioError(
            f"accelerate was told mixed_precision {accelerator.mixed_precision}, expected no",
            "The precision of the products is sft.precision or rl.precision.",
        )


def check_supplied(objective: BoundObjective, name: str, supplied: frozenset[str]) -> None:
    """Refuse an objective that reads what this stage's loop does not compute.

    Raises:
        CurioError: `supplied` lacks a need, or a term of the loss is divided by a mask that is not among the needs.
    """
    own = (
        {divisor for divisor in objective.terms if isinstance(divisor, str)} - {"reduction", "tokens"} - objective.needs
    )
    lacking = sorted(objective.needs - supplied) + sorted(own)
    if lacking:
        raise CurioError(
            f"objective '{name}' with these parameters needs {', '.join(lacking)}, which this stage does not supply",
            "Choose another objective.",
        )


def gather_objects(accelerator: Accelerator, mine: list[T]) -> list[T]:
    """The items of every rank, in the order of ranks."""
    from accelerate.utils import gather_object

    return gather_object(mine) if accelerator.num_processes > 1 else mine


def gather_rows(accelerator: Accelerator, values: Tensor) -> tuple[Tensor, int]:
    """One-dimensional `values` of every rank, end to end, and where this rank's begin."""
    import torch

    if accelerator.num_processes == 1:
        return values, 0
    sizes = accelerator.gather(torch.tensor([len(values)], device=values.device)).tolist()
    padded = values.new_zeros(max(sizes))
    padded[: len(values)] = values
    parts = accelerator.gather(padded).split(max(sizes)) if max(sizes) else ()
    whole = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=False)]) if parts else values
    return whole, sum(sizes[: accelerator.process_index])
