"""Child processes that never outlive their parent, and free ports."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

import curiosft_cli

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(expected_parent: int | None = None) -> None:
    """Have Linux kill this process when its parent ends, also by `kill -9`. Elsewhere: no effect.

    Args:
        expected_parent: process id of the parent; if it is gone already, end at once.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if expected_parent is not None and os.getppid() != expected_parent:
        os.kill(os.getpid(), signal.SIGKILL)


def isolated(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child that looks for modules nowhere but where they are installed, and so do its children.

    Otherwise a `secrets.py` in the current folder would run in place of Python's own. The child imports this very
    package, also if it is not installed but lies in a folder, or if another copy is installed.
    """
    child = {**environment, "PYTHONSAFEPATH": "1"}
    here = Path(curiosft_cli.__file__).resolve()
    unsafe = not sys.flags.safe_path and Path(sys.path[0]).resolve() == Path.cwd()
    searched = sys.path[1:] if unsafe else sys.path
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    specs = (finder.find_spec("curiosft_cli", searched if finder is PathFinder else None) for finder in finders)
    found = next(filter(None, specs), None)
    if found is None or found.origin is None or Path(found.origin).resolve() != here:
        child["PYTHONPATH"] = os.pathsep.join(filter(None, [str(here.parents[1]), environment.get("PYTHONPATH")]))
    return child


def usable_cores(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: those of its affinity mask, less where a container limits processor time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max" is no limit
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def free_port(host: str = "127.0.0.1") -> int:
    """A port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def supervise(parent: int, stop_limit_s: float, command: Sequence[str], poll_s: float = 0.2) -> None:
    """Wait until the command ends, the parent is gone, or SIGTERM comes; then end the group, this process included.

    Args:
        parent: process id; a gone parent is noticed by its id not being ours any more.
        stop_limit_s: seconds between SIGTERM and SIGKILL.
        command: started in this process's group.
        poll_s: seconds between checks.
    """
    if os.getpgrp() != os.getpid():
        raise RuntimeError("start this process in a group of its own: it ends its whole group")
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    child = subprocess.Popen(command)
    while child.poll() is None and os.getppid() == parent and not signals:
        time.sleep(poll_s)
    if child.returncode is None:
        os.killpg(0, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(stop_limit_s)
    os.killpg(0, signal.SIGKILL)


def hide_exits_in_tasks() -> None:
    """Keep asyncio from printing the exit after a signal as an error of the task that the signal came in."""
    logging.getLogger("asyncio").addFilter(_is_no_exit)


def _is_no_exit(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], SystemExit))


def ignore_stop_signals() -> None:
    """Ignore SIGTERM and Ctrl-C from now on: the process ends, and Python's own shutdown would print a traceback."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    supervise(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
