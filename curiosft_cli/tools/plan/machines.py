"""What a plan is made for: GPUs by their data sheets, or this machine's CPU by two short measurements."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.run.device import GIB
from curiosft_cli.run.errors import CurioError, nearest

if TYPE_CHECKING:
    import torch

CPU = "cpu"
CPU_REACHED = 0.62
"""Share of the measured speeds that steps reach: fitted to three models (docs/performance.md)."""


@dataclass(frozen=True)
class Machine:
    """One device.

    Attributes:
        memory: bytes of one device.
        products: floating-point operations of bfloat16 products in a second, at the peak.
        moved: bytes of memory traffic in a second, at the peak.
        reached: share of the peak of the products that whole steps reach (MFU); on a CPU the share of both measured
            speeds.
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


def measured_cpu(dtype: torch.dtype | None, vocabulary: int = 49_152, reached: float = CPU_REACHED) -> Machine:
    """Products of a layer's size, and passes over a tile of logits, of one process of this machine."""
    import accelerate  # noqa: F401  (what a training imports)
    import torch

    from curiosft_cli.train.size import device_memory

    left, right = (torch.randn(size, 1024).to(dtype or torch.float32) for size in (512, 1024))
    product_s = _seconds(lambda: left @ right.t())
    tile = torch.randn(8, vocabulary)
    # What a chunk of the head goes through: copy, difference, softmax, product; read and written.
    pass_s = _seconds(lambda: (tile - 1.0).softmax(-1).mul_(tile))
    moved = 7 * tile.numel() * tile.element_size()
    return Machine(
        device_memory(torch.device(CPU)), 2 * 512 * 1024 * 1024 / product_s, moved / pass_s, reached, _resident()
    )


def _seconds(call: Callable[[], object], at_least_s: float = 0.2) -> float:
    """Processor seconds of one call in this thread, after a warm-up."""
    call()
    started, calls = time.process_time(), 0
    while time.process_time() - started < at_least_s:
        call()
        calls += 1
    return (time.process_time() - started) / calls


def _resident() -> int:
    """Bytes of this process, which has the imports of a training; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
