"""The student over all processes: sharded layer by layer, or a whole copy in each; a rank's part, and the whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.load import layers_of
from curiosft_cli.train.lora import merged, plain_parts

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import Tensor, nn
    from torch.distributed.device_mesh import DeviceMesh

    from curiosft_cli.run.sections import Launch
    from curiosft_cli.train.student import Student


def shard_kind(settings: Launch, ranks: int) -> Literal["full", "hybrid"] | None:
    """`launch.shard` with `auto` decided: `full` for several processes, and for one whose shards are offloaded.

    Raises:
        CurioError: whole copies are to be offloaded.
    """
    if settings.shard is None and settings.offload:
        raise CurioError("launch.offload needs shards, and launch.shard = none has none", "Set launch.shard=auto.")
    if settings.shard == "auto":
        return "full" if ranks > 1 or settings.offload else None
    return settings.shard


def distribute(student: Student, accelerator: Accelerator, settings: Launch) -> nn.Module:
    """The module to call for a pass: a data-parallel copy in each process, or the student, from now on sharded.

    The first rank's values are everybody's. It sends them layer by layer, and a rank keeps its part of a layer before
    the next one comes: no rank ever has the whole model on its device.

    Args:
        student: on the first rank with its weights, in main memory; on the others these may be without values.

    Raises:
        CurioError: a sharding that this launch or this model cannot have.
    """
    kind = shard_kind(settings, accelerator.num_processes)
    if kind is None:
        return accelerator.prepare_model(student)
    from torch.distributed.fsdp import (
        CPUOffloadPolicy,
        MixedPrecisionPolicy,
        OffloadPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    from curiosft_cli.train.student import BESIDE_FORWARD

    device, first = accelerator.device, accelerator.is_main_process
    # Autocast rules over what is multiplied how, as without shards. Outside the layers (embedding, last norm, head)
    # weights are gathered in float32: the gradient of the head is summed in it.
    shared: dict[str, Any] = {
        "mesh": _mesh(kind, accelerator),
        "reshard_after_forward": True,
        "offload_policy": CPUOffloadPolicy(pin_memory=device.type == "cuda") if settings.offload else OffloadPolicy(),
    }
    import torch

    for layer in layers_of(student.model):
        _receive(layer, device, first=first)
        policy = MixedPrecisionPolicy(student.compute_dtype, torch.float32, cast_forward_inputs=False)
        fully_shard(layer, mp_policy=policy, **shared)
    _receive(student, device, first=first)
    fully_shard(student, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False), **shared)
    for method in BESIDE_FORWARD:
        register_fsdp_forward_method(student, method)
    return student


def _mesh(kind: Literal["full", "hybrid"], accelerator: Accelerator) -> DeviceMesh:
    """All ranks in one row, or one row of them per node."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    ranks, device = accelerator.num_processes, accelerator.device.type
    if not dist.is_initialized():
        dist.init_process_group("gloo" if device == "cpu" else None, store=dist.HashStore(), rank=0, world_size=1)
    if kind == "full":
        return init_device_mesh(device, (ranks,))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    if ranks % local:
        raise CurioError(
            f"launch.shard = hybrid needs as many processes on every node; {local} of {ranks} are on this one",
            "Set launch.shard=full, or start the same number everywhere.",
        )
    return init_device_mesh(device, (ranks // local, local), mesh_dim_names=("nodes", "shards"))


def _receive(module: nn.Module, device: torch.device, *, first: bool) -> None:
    """Give all ranks the first one's values of those parameters of `module` that are not sharded yet, on `device`."""
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.tensor import DTensor

    # By identity, so that tied weights stay tied; the old ones are kept, because a free identity is given away again.
    received: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    for part in module.modules():
        for name, held in part._parameters.items():
            if held is None or isinstance(held, DTensor):
                continue
            if id(held) not in received:
                values = held.detach().to(device) if first else torch.empty_like(held, device=device)
                dist.broadcast(values, src=0)
                received[id(held)] = held, nn.Parameter(values, requires_grad=held.requires_grad)
            part._parameters[name] = received[id(held)][1]


def local_shard(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, or the tensor itself; shares memory with it, has no gradient."""
    from torch.distributed.tensor import DTensor

    detached = tensor.detach()
    return detached.to_local() if isinstance(detached, DTensor) else detached


def own_rows(tensor: Tensor) -> slice:
    """The rows of the whole tensor that this rank holds: all, or those of its shard along the first axis."""
    from torch.distributed.tensor import DTensor

    rows = len(tensor)
    if not isinstance(tensor, DTensor):
        return slice(0, rows)
    mesh = tensor.device_mesh
    each = -(-rows // mesh.size(mesh.ndim - 1))
    start = min(rows, each * mesh.get_local_rank(mesh.ndim - 1))
    return slice(start, min(rows, start + each))


def shards_of(model: nn.Module) -> tuple[int, bool]:
    """Into how many parts the weights are cut, and whether this rank's are not a copy of another rank's.

    Without shards the parts are one, and the ranks' copies are equal.
    """
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor

    weight = next(model.parameters())
    if not isinstance(weight, DTensor):
        return 1, not dist.is_initialized() or dist.get_rank() == 0
    mesh = weight.device_mesh
    return mesh.size(mesh.ndim - 1), mesh.ndim == 1 or mesh.get_local_rank(0) == 0


@dataclass(frozen=True)
class WholeWeights:
    """Every tensor of a model's state dict whole, one at a time, in the order of its name, as often as it is walked.

    Sharded tensors are gathered, which is a collective: all ranks walk together, and each holds one full tensor
    at a time. A tied head comes as `lm_head.weight` too, since an engine may hold a copy of its own. Adapters are
    merged: the names are those of the plain model.

    Attributes:
        model: without wrappers that rename parameters (data parallel, compiled).
    """

    model: nn.Module

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, (base, layer) in plain_parts(self.model).items():
            yield name, merged(base, layer, whole)

    def shapes(self) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Name, dtype and whole shape of each tensor; nothing is gathered."""
        return [(name, base.dtype, tuple(base.shape)) for name, (base, _) in plain_parts(self.model).items()]


def whole(tensor: Tensor) -> Tensor:
    """The tensor without a gradient, gathered from all ranks where it is sharded."""
    from torch.distributed.tensor import DTensor

    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def full_weights(model: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """The plain model's state dict; tied weights share one tensor. Every rank calls it, since shards are gathered.

    Args:
        model: sharded or not; what is sharded arrives in main memory, one parameter at a time.
        keep: false on the ranks that only help to gather: their result is empty.
    """
    from torch.distributed.tensor import DTensor

    weights: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    for name, (base, layer) in plain_parts(model).items():
        if (first := names.setdefault(id(base), name)) == name:
            tensor = merged(base, layer, whole)
            if keep:
                weights[name] = tensor.cpu() if isinstance(base, DTensor) else tensor
        elif keep:
            weights[name] = weights[first]
    return weights
