"""Memory settings of processes that train on a CPU; `launch.py` chooses them."""

from __future__ import annotations


def cpu_allocator_environment(kept_bytes: int = 8 * 2**30) -> dict[str, str]:
    """Variables that make glibc keep freed memory, up to `kept_bytes`, and use it again.

    Without them every large temporary is fresh memory, whose pages cost more than the pass over them: with a vocabulary
    of 152k a quarter of the step. Other C libraries ignore these variables.
    """
    return {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(kept_bytes)}
