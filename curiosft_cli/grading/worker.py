"""The process that grades: items come in on a pipe, one grade goes out for each as it finishes.

`GraderPool` starts it as a plain child process rather than by multiprocessing's spawn, which would import the
caller's `__main__` (a training stage with torch and vLLM) into every worker. Messages are JSON: nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.grading import symbolic
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.run.processes import die_with_parent

READY = b'"ready"'
RETIRE = b'"retire"'
START = (
    "import json, sys; sys.path.append(sys.argv[2]); from curiosft_cli.grading.worker import serve; "
    "serve(**json.loads(sys.argv[1]))"
)


def serve(
    fd: int, memory_gib: float, library_timeout_s: float, deadline_s: float, parent_pid: int, is_main_thread: bool
) -> None:
    """Grade until the other end of the pipe is gone, or until memory once passed half its limit."""
    _confine(memory_gib, parent_pid, is_main_thread)
    symbolic.library()  # now, so that the first item does not pay for it
    connection = Connection(fd)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send_bytes(READY)
        while True:
            fields = json.loads(connection.recv_bytes())
            item = GradeItem(**fields | {"problem": Problem(**fields["problem"])})
            # The parent kills in time; this stops a worker in a long C call whose parent is gone (default action).
            signal.setitimer(signal.ITIMER_PROF, deadline_s + 1)
            graded = _grade(item, library_timeout_s)
            connection.send_bytes(json.dumps(dataclasses.asdict(graded)).encode())
            signal.setitimer(signal.ITIMER_PROF, 0)
            if _peak_gib() > memory_gib / 2:
                return connection.send_bytes(RETIRE)


def _grade(item: GradeItem, library_timeout_s: float) -> Grade:
    try:
        return item.grade(library_timeout_s)
    except MemoryError:
        return Grade(0.0, 0.0, None, None, "oom", "wrong")
    except Exception as error:
        print(f"grader: {type(error).__name__} on a completion for problem {item.problem.id!r}", file=sys.stderr)
        return Grade(0.0, 0.0, None, None, "crash", "wrong")


def _peak_gib(status: Path = Path("/proc/self/status")) -> float:
    """Most memory that this program has held. On Linux `ru_maxrss` starts with the parent's: a trainer's gigabytes."""
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _confine(memory_gib: float, parent_pid: int, is_main_thread: bool) -> None:
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A batch system may send SIGTERM to every process, and a step that is still finished needs its grades.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The signal comes when the *thread* that started us ends, so it is asked for only if that is the main thread.
    if is_main_thread:
        die_with_parent(parent_pid)
    elif os.getppid() != parent_pid:
        sys.exit(0)
