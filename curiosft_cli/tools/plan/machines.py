"""What a plan is made for: GPUs by their data sheets, or this machine's CPU, measured."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.run.device import GIB
from curiosft_cli.run.errors import CurioError, nearest

if TYPE_CHECKING:
    import torch

CPU = "cpu"


@dataclass(frozen=True)
class Machine:
    """One device.

    Attributes:
        memory: bytes of one device.
        products: floating-point operations of bfloat16 products in a second, at the peak.
        moved: bytes of memory traffic in a second, at the peak.
        reached: share of the peak of the products that whole steps reach (MFU).
        imports: bytes of a process on a CPU without a model.
    """

    memory: int
    products: float
    moved: float
    reached: float = 0.4
    imports: int = 0


# Data sheets: dense bfloat16 products with float32 sums, memory bandwidth.
GPUS: dict[str, Machine] = {
    "a100-40g": Machine(40 * GIB, 312e12, 1.55e12),
    "a100-80g": Machine(80 * GIB, 312e12, 2.04e12),
    "h100-80g": Machine(80 * GIB, 989e12, 3.35e12),
    "h800-80g": Machine(80 * GIB, 989e12, 3.35e12),
    "h200-141g": Machine(141 * GIB, 989e12, 4.8e12),
    "b200-180g": Machine(180 * GIB, 2250e12, 8e12),
    "l40s-48g": Machine(48 * GIB, 362e12, 0.86e12),
    "rtx4090-24g": Machine(24 * GIB, 165e12, 1.01e12),
}


def machine_named(name: str, mfu: float | None, dtype: torch.dtype | None = None) -> Machine:
    """The device of this name; "cpu" is this machine, measured in about a second.

    Args:
        name: one of `GPUS`, or "cpu".
        mfu: share of a GPU's peak that whole steps reach; None is the default.
        dtype: of the products, for a CPU.

    Raises:
        CurioError: there is no such device.
    """
    if name == CPU:
        return measured_cpu(dtype)
    if name not in GPUS:
        raise CurioError(f"curiosft plan knows no GPU '{name}'", nearest(name, [*GPUS, CPU]))
    known = GPUS[name]
    return known if mfu is None else Machine(known.memory, known.products, known.moved, mfu)


def measured_cpu(dtype: torch.dtype | None, passed: int = 2**24) -> Machine:
    """General speeds of one process of this machine: of products of a layer's size, and of passes over the memory.

    Args:
        dtype: of the products.
        passed: numbers of a tensor that no cache holds.
    """
    import accelerate  # noqa: F401  (what a training imports)
    import torch

    from curiosft_cli.tools.plan.replay import seconds
    from curiosft_cli.train.size import device_memory

    left, right = (torch.randn(size, 1024).to(dtype or torch.float32) for size in (512, 1024))
    product_s = seconds(lambda: left @ right.t())
    target, other = torch.zeros(passed), torch.zeros(passed)
    moved = 3 * target.nbytes / seconds(lambda: target.add_(other))
    return Machine(device_memory(torch.device(CPU)), 2 * 512 * 1024 * 1024 / product_s, moved, 1.0, _resident())


def _resident() -> int:
    """Bytes of this process, which has the imports of a training; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
