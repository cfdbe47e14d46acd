"""Memory settings of processes that train on a CPU; `launch.py` chooses them."""

from __future__ import annotations

import contextlib
import ctypes
import sys

MALLOPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_MMAP_MAX_": -4}
"""The numbers of these variables in glibc's malloc.h."""


def cpu_allocator_environment(
    *, sharded: bool = False, kept_bytes: int = 8 * 2**30, returned_bytes: int = 2**16
) -> dict[str, str]:
    """Variables that make glibc keep freed memory, up to `kept_bytes`, and use it again.

    With shards they make it return every block of `returned_bytes` or more: layers come and go in blocks of many sizes,
    and the gaps between them would cost what the shards save.

    Without them every large temporary is fresh memory, whose pages cost more than the pass over them: with a vocabulary
    of 152k a quarter of the step. Other C libraries ignore these variables.
    """
    if sharded:
        return {"MALLOC_MMAP_THRESHOLD_": str(returned_bytes)}
    return {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(kept_bytes)}


def set_cpu_allocator(*, sharded: bool = False, most: int = 2**31 - 1) -> None:
    """The same for this process, which runs already; nothing where the C library is another.

    Args:
        sharded: see `cpu_allocator_environment`.
        most: what a C int holds.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            default = {"MALLOC_MMAP_MAX_": "65536"}
            for name, value in (default | cpu_allocator_environment(sharded=sharded)).items():
                mallopt(MALLOPT[name], min(most, int(value)))
