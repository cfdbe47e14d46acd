"""What the hardware is, and in which number format it multiplies fast."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

Dtype = Literal["auto", "bfloat16", "float32"]
GIB = 2**30
"""Bytes."""


class MainMemory(NamedTuple):
    """Bytes of this machine, or of the container where that has fewer; None where the system does not say.

    Attributes:
        total: swap included.
        free: without swap.
    """

    total: int | None
    free: int | None


def main_memory(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> MainMemory:
    """What Linux says of its memory, and the limit of the container's group."""
    sizes: dict[str, int] = {}
    with contextlib.suppress(OSError, IndexError, ValueError):
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        sizes = {name: int(size.split()[0]) * 1024 for name, size in lines.items()}
    total = [sizes["MemTotal"] + sizes.get("SwapTotal", 0)] if "MemTotal" in sizes else []
    free = [sizes["MemAvailable"]] if "MemAvailable" in sizes else []
    with contextlib.suppress(OSError, ValueError):  # "max" is no limit
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        total.append(limit + sizes.get("SwapTotal", 0))
        free.append(limit - used)
    return MainMemory(min(total, default=None), min(free, default=None))


def resolve_dtype(dtype: Dtype, device: torch.device | str | None = None) -> Literal["bfloat16", "float32"]:
    """Turn "auto" into bfloat16 where `device` multiplies it natively, else float32.

    Args:
        dtype: "auto", or the answer itself.
        device: a torch device; None is the current GPU, else the CPU.
    """
    import torch

    if dtype != "auto":
        return dtype
    if torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if cpu_multiplies_bfloat16() else "float32"


def cpu_multiplies_bfloat16(flags: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether an x86 processor lists `avx512_bf16`. Others emulate bfloat16, about fifty times slower than float32."""
    try:
        return "avx512_bf16" in flags.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False


def hardware() -> dict[str, Any]:
    """The accelerators by name, or the CPU: part of what one must know to repeat a measurement."""
    import torch

    if torch.cuda.is_available():
        return {"accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]}
    return {"accelerators": [], "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
