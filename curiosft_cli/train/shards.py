"""Weights that may be sharded over the ranks: one rank's part of them, and the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def local_shard(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, or the tensor itself; shares memory with it, has no gradient."""
    from torch.distributed.tensor import DTensor

    detached = tensor.detach()
    return detached.to_local() if isinstance(detached, DTensor) else detached


def is_sharded(model: nn.Module) -> bool:
    """Whether a rank holds only parts of the weights."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def full_weights(model: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """The whole state dict; tied weights share one tensor. Every rank calls it, since shards are gathered.

    Args:
        model: sharded or not; what is sharded arrives in main memory, one parameter at a time.
        keep: false on the ranks that only help to gather: their result is empty.
    """
    from torch.distributed.tensor import DTensor

    whole: dict[int, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in whole:
            detached = tensor.detach()
            full = detached.full_tensor().cpu() if isinstance(detached, DTensor) else detached
            whole[id(tensor)] = full if keep else full.new_empty(0)
        weights[name] = whole[id(tensor)]
    return weights if keep else {}
