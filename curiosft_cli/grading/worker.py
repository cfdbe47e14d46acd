"""The process that grades: items come in on a pipe, one grade goes out for each as it finishes.

`GraderPool` starts it as a plain child process rather than by multiprocessing's spawn, which would import the
caller's `__main__` (a training stage with torch and vLLM) into every worker. Messages are JSON: nothing that comes
back is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.grading import symbolic
from curiosft_cli.grading.grade import GradeItem, grade
from curiosft_cli.run.processes import die_with_parent

READY = b'"ready"'
RETIRE = b'"retire"'
START = "import sys; sys.path.append(sys.argv[2]); from curiosft_cli.grading.worker import main; main()"


def encode_item(item: GradeItem) -> bytes:
    """Encode one item as a message."""
    return json.dumps(dataclasses.asdict(item)).encode()


def decode_grade(message: bytes) -> Grade:
    """Decode the message that reports one grade."""
    return Grade(**json.loads(message))


def serve(connection: Connection, library_timeout_s: float, deadline_s: float, peak_gib: float) -> None:
    """Grade until the other end of the pipe is gone, or until memory once passed `peak_gib`."""
    symbolic.load()
    connection.send_bytes(READY)
    while True:
        fields = json.loads(connection.recv_bytes())
        # The parent kills in time; this stops a worker in a long C call whose parent is gone (default action).
        signal.setitimer(signal.ITIMER_PROF, deadline_s + 1)
        graded = _grade(fields, library_timeout_s)
        connection.send_bytes(json.dumps(dataclasses.asdict(graded)).encode())
        signal.setitimer(signal.ITIMER_PROF, 0)
        if _peak_gib() > peak_gib:
            return connection.send_bytes(RETIRE)


def _grade(fields: dict[str, Any], library_timeout_s: float) -> Grade:
    problem: dict[str, Any] = fields.pop("problem")
    problem["choices"] = tuple(problem["choices"])
    fields["end_tokens"] = tuple(fields["end_tokens"])
    try:
        return grade(fields.pop("completion"), Problem(**problem), library_timeout_s=library_timeout_s, **fields)
    except MemoryError:
        return Grade(0.0, 0.0, None, None, "oom", "wrong")
    except Exception as error:
        print(f"grader: {type(error).__name__} on a completion for problem {problem['id']!r}", file=sys.stderr)
        return Grade(0.0, 0.0, None, None, "crash", "wrong")


def _peak_gib(status: Path = Path("/proc/self/status")) -> float:
    """Most memory that this program has held. On Linux `ru_maxrss` starts with the parent's: a trainer's gigabytes."""
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _confine(memory_gib: float, parent_pid: int, parent_is_main_thread: bool) -> None:
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A batch system may send SIGTERM to every process, and a step that is still finished needs its grades.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The signal comes when the *thread* that started us ends, so it is asked for only if that is the main thread.
    if parent_is_main_thread:
        die_with_parent(parent_pid)
    elif os.getppid() != parent_pid:
        sys.exit(0)


def main() -> None:
    """Serve the pool that started this process."""
    options = json.loads(sys.argv[1])
    _confine(options["memory_gib"], options["parent_pid"], options["parent_is_main_thread"])
    try:
        serve(
            Connection(options["fd"]),
            options["library_timeout_s"],
            options["deadline_s"],
            peak_gib=options["memory_gib"] / 2,
        )
    except (EOFError, BrokenPipeError, ConnectionResetError):
        sys.exit(0)
