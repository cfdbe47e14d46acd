"""How long the operations of a step take on this machine: each kind is done once more, with random numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from curiosft_cli.run.device import GIB
from curiosft_cli.train.head.cpu_kernels import CpuKernels
from curiosft_cli.train.meter import Operation, Shape

KERNELS: dict[Any, Callable[..., object]] = {
    torch.ops.aten.topk.default: lambda logits, topk, *_: CpuKernels().largest(logits, topk)
}
"""What a training on a CPU does in place of an operation of the general path."""


def replayed_seconds(
    operations: Mapping[Operation, float],
    products: float,
    moved: float,
    *,
    most_flops: float = 5e10,
    most_bytes: float = GIB,
) -> float:
    """Processor seconds of one thread.

    Args:
        operations: how often each is done.
        products: floating-point operations in a second, for products that are too large to be done again.
        moved: bytes in a second, for other operations that are too large, and for those that work on many tensors.
        most_flops: operations of a product that is done again.
        most_bytes: what another operation may move.
    """
    total = 0.0
    for operation, times in operations.items():
        if operation.flops > most_flops or operation.moved > most_bytes or _on_lists(operation):
            total += times * (operation.flops / products + operation.moved / moved)
        else:
            total += times * _seconds_of(operation)
    return total


def seconds(call: Callable[[], object], at_least_s: float = 0.2) -> float:
    """Processor seconds of one call with one thread, after a warm-up. Threads that wait for others would count too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        call()
        started, calls = time.process_time(), 0
        while time.process_time() - started < at_least_s:
            call()
            calls += 1
        return (time.process_time() - started) / calls
    finally:
        torch.set_num_threads(threads)


def _on_lists(operation: Operation) -> bool:
    """AdamW works on all weights at a time, which is as fast as the memory."""
    return operation.func.__name__.startswith("_fused")


def _seconds_of(operation: Operation, at_least_s: float = 0.005) -> float:
    func = KERNELS.get(operation.func, operation.func)
    arguments, options = _tensors(operation.arguments), dict(_tensors(operation.options))
    with torch.no_grad():
        return seconds(partial(func, *arguments, **options), at_least_s)


def _tensors(values: Any) -> Any:
    if isinstance(values, tuple):
        return tuple(map(_tensors, values))
    if not isinstance(values, Shape):
        return values
    length = 1 + sum((size - 1) * stride for size, stride in zip(values.size, values.stride, strict=True))
    made = torch.zeros(max(0, length), dtype=values.dtype)
    return (made.normal_() if made.is_floating_point() else made).as_strided(values.size, values.stride)
