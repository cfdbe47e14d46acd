"""What the hardware is, and in which number format it multiplies fast."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Dtype = Literal["auto", "bfloat16", "float32"]
GIB = 2**30
"""Bytes."""


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
