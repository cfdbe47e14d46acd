"""Settings of the C library's memory for a process that trains on a CPU."""

from __future__ import annotations


def memory_environment(kept_bytes: int = 8 * 2**30) -> dict[str, str]:
    """Variables for a child that trains on a CPU: glibc keeps freed memory, up to `kept_bytes`, and uses it again.

    Otherwise every large temporary is fresh memory, and its page faults cost more than the pass over it. Other C
    libraries ignore these variables.
    """
    return {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(kept_bytes)}
