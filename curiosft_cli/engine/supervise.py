"""Run a command and all its descendants for as long as a parent lives: `python -m ... PARENT_PID STOP_LIMIT_S COMMAND`.

A server's workers survive the kill of the server, and nobody is left to end them when the parent is killed. This
process stands between: it leads the process group, watches the parent, and takes the whole group with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence


def supervise(parent: int, stop_limit_s: float, command: Sequence[str], poll_s: float = 0.2) -> None:
    """Wait until the command ends, the parent is gone, or SIGTERM comes; then end the group, this process included.

    Args:
        parent: process id; a gone parent is noticed by its id not being ours any more.
        stop_limit_s: seconds between asking (SIGTERM) and killing (SIGKILL).
        command: started in this process's group.
        poll_s: seconds between looks.
    """
    if os.getpgrp() != os.getpid():
        raise RuntimeError("start this process in a group of its own: it ends its whole group")
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    child = subprocess.Popen(command)
    while child.poll() is None and os.getppid() == parent and not asked:
        time.sleep(poll_s)
    if child.returncode is None:
        os.killpg(0, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(stop_limit_s)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    supervise(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
