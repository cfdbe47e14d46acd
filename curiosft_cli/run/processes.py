"""Children that never outlive their parent, and ports that are free."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(expected_parent: int | None = None) -> None:
    """Ask Linux to kill this process when its parent ends, also by `kill -9`. Elsewhere: no effect.

    Args:
        expected_parent: process id of the parent; if it is gone already, end at once.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if expected_parent is not None and os.getppid() != expected_parent:
        os.kill(os.getpid(), signal.SIGKILL)


def free_port(host: str = "127.0.0.1") -> int:
    """A port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def memory_environment(kept_bytes: int = 8 * 2**30) -> dict[str, str]:
    """Variables for a child that trains on a CPU: glibc keeps freed memory, up to `kept_bytes`, and uses it again.

    Otherwise every large temporary is fresh memory, whose pages cost more than the pass over them: with a vocabulary of
    152k a quarter of the step. Other C libraries pass over these variables.
    """
    return {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(kept_bytes)}
