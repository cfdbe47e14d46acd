"""What the machine computes fast: the default number format of every engine and server."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Literal

Dtype = Literal["auto", "bfloat16", "float32"]


def resolve_dtype(dtype: Dtype, cpu_flags: Path = Path("/proc/cpuinfo")) -> Literal["bfloat16", "float32"]:
    """Turn "auto" into bfloat16 where the hardware multiplies it natively, else float32.

    Native: a CUDA device that supports it, or an x86 processor that lists `avx512_bf16` in `cpu_flags`. Without
    it bfloat16 is emulated on a CPU and about fifty times slower than float32.
    """
    import torch

    if dtype != "auto":
        return dtype
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = cpu_flags.exists() and "avx512_bf16" in cpu_flags.read_text().split()
    return "bfloat16" if native else "float32"


def hardware() -> dict[str, Any]:
    """The accelerators by name, or the CPU: part of what one must know to repeat a measurement."""
    import torch

    if torch.cuda.is_available():
        return {"accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]}
    return {"accelerators": [], "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
