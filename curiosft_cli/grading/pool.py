"""Grading in worker processes that can be killed: nothing a model prints can hang or crash a run.

The parent times each item: from the moment it was sent, or the item before it was reported, to its own report. Past
the deadline the worker is killed and replaced. It is sent a few small items ahead, so that it never waits. Messages
are JSON. Multiprocessing would unpickle them, and its spawn imports the caller's `__main__`, a stage with torch.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from subprocess import DEVNULL, Popen

from curiosft_cli.data.records import Grade, GradeStatus, Problem
from curiosft_cli.grading import symbolic
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.processes import die_with_parent, isolated

_AHEAD_ITEMS = 32
_AHEAD_BYTES = 32 * 1024
_START_LIMIT_S = 120.0
_START_ATTEMPTS = 3
_IN_ORDER = object()
_READY, _RETIRE = b'"ready"', b'"retire"'
_SERVE = "import json, sys; from curiosft_cli.grading.pool import serve; serve(**json.loads(sys.argv[1]))"


@dataclass(eq=False)
class _Task:
    key: Hashable
    item: GradeItem
    message: bytes = field(repr=False)
    graded: Grade | None = None


@dataclass(eq=False)
class _Worker:
    """One process, its pipe, and the tasks it was sent and has not reported."""

    process: Popen[bytes]
    connection: Connection
    ready: bool = False
    tasks: deque[_Task] = field(default_factory=deque)
    since: float = field(default_factory=time.monotonic)

    def send(self, task: _Task) -> None:
        """Send a task. Blocks only while the worker is there to read: it is idle, or the pipe has room."""
        if not self.tasks:
            self.since = time.monotonic()
        self.tasks.append(task)
        self.connection.send_bytes(task.message)

    def has_room(self, task: _Task) -> bool:
        ahead = [len(sent.message) for sent in (*self.tasks, task)]
        return not self.tasks or (len(ahead) <= _AHEAD_ITEMS and sum(ahead) <= _AHEAD_BYTES)

    def left_s(self, deadline_s: float) -> float:
        """Return the seconds until it is overdue with its item, or with its start."""
        if self.ready and not self.tasks:
            return math.inf
        return self.since + (deadline_s if self.ready else _START_LIMIT_S) - time.monotonic()

    def kill(self) -> int:
        self.process.kill()
        self.connection.close()
        return self.process.wait()


class GraderPool(contextlib.AbstractContextManager["GraderPool"]):
    """A pool of grading processes.

    `submit` and `poll` or `drain` overlap grading with other work. Call `poll` often: it also feeds the workers and
    enforces deadlines. One thread at a time.

    Args:
        workers: processes; each uses one core.
        deadline_s: seconds one item may take before its worker is killed and the item scores 0 with "timeout".
        memory_gib: address space of a worker; exceeding it scores 0 with "oom" or "crash". A worker that has held half
            of it is replaced after its item, because the algebra's caches grow.
        library_timeout_s: CPU seconds for each parse and each comparison inside the worker.
    """

    def __init__(
        self, workers: int, deadline_s: float = 10.0, memory_gib: float = 2.0, library_timeout_s: float = 3.0
    ) -> None:
        if min(workers, deadline_s, memory_gib, library_timeout_s) <= 0:
            given = f"{workers=}, {deadline_s=}, {memory_gib=}, {library_timeout_s=}"
            raise CurioError(f"a grader pool has {given}: all must be positive")
        self._deadline_s = deadline_s
        self._limits = {"deadline_s": deadline_s, "memory_gib": memory_gib, "library_timeout_s": library_timeout_s}
        self._waiting: deque[_Task] = deque()
        self._finished: list[tuple[Hashable, Grade]] = []
        self._failed_starts = 0
        self._workers = [self._start() for _ in range(workers)]

    def submit(self, key: Hashable, item: GradeItem) -> None:
        """Queue one completion; its grade comes back from `poll` or `drain` under `key`."""
        self._queue(key, item)
        self._advance(0.0)

    def poll(self, timeout_s: float = 0.0) -> list[tuple[Hashable, Grade]]:
        """Return the grades finished so far, waiting up to `timeout_s` for the first one."""
        until = time.monotonic() + timeout_s
        self._advance(0.0)
        while not self._finished and self.pending and (left_s := until - time.monotonic()) > 0:
            self._advance(left_s)
        finished, self._finished = self._finished, []
        return finished

    def drain(self) -> Iterator[tuple[Hashable, Grade]]:
        """Yield every grade still to come, in finishing order."""
        while self.pending or self._finished:
            yield from self.poll(self._deadline_s)

    def grade_in_order(self, items: Iterable[GradeItem], ahead: int = 512) -> Iterator[Grade]:
        """Yield the grade of each item in the order of the items, reading at most `ahead` of them in advance.

        One slow item holds back what is yielded, not what is graded. Grades of `submit` stay for `poll`.
        """
        source, tasks = iter(items), deque[_Task]()
        while True:
            tasks.extend(self._queue(_IN_ORDER, item) for item in islice(source, ahead - len(tasks)))
            if not tasks:
                return
            self._advance(0.0)
            while (graded := tasks[0].graded) is None:
                self._advance(self._deadline_s)
            tasks.popleft()
            yield graded

    @property
    def pending(self) -> int:
        """Number of items submitted and not yet graded."""
        return len(self._waiting) + sum(len(worker.tasks) for worker in self._workers)

    def close(self) -> None:
        """Kill the workers. Items not yet graded are dropped. Safe to call twice."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        self._waiting.clear()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _queue(self, key: Hashable, item: GradeItem) -> _Task:
        if not self._workers:
            raise CurioError("this grader pool is closed", "make a new GraderPool")
        self._waiting.append(_Task(key, item, json.dumps(asdict(item)).encode()))
        return self._waiting[-1]

    def _start(self) -> _Worker:
        ours, theirs = Pipe()
        is_main_thread = threading.current_thread() is threading.main_thread()
        options = {"fd": theirs.fileno(), "parent_pid": os.getpid(), "is_main_thread": is_main_thread, **self._limits}
        command = [sys.executable, "-c", _SERVE, json.dumps(options)]
        process = Popen(command, env=isolated(os.environ), stdin=DEVNULL, stdout=DEVNULL, pass_fds=[theirs.fileno()])
        theirs.close()
        return _Worker(process, ours)

    def _advance(self, timeout_s: float) -> None:
        """Feed the workers, take in what they report within `timeout_s`, and replace the dead and the overdue."""
        self._feed()
        patience_s = max(0.0, min([timeout_s, *(worker.left_s(self._deadline_s) for worker in self._workers)]))
        reported = wait([worker.connection for worker in self._workers], patience_s)
        for index, worker in enumerate(self._workers):
            if worker.connection in reported:
                self._take_in(index, worker)
            elif worker.left_s(self._deadline_s) < 0:
                self._replace(index, "timeout")
        self._feed()

    def _feed(self) -> None:
        for worker in self._workers:
            while self._waiting and worker.ready and worker.has_room(self._waiting[0]):
                try:
                    worker.send(self._waiting.popleft())
                except OSError:
                    break

    def _take_in(self, index: int, worker: _Worker) -> None:
        try:
            while worker.connection.poll():
                message = worker.connection.recv_bytes()
                if message == _READY:
                    worker.ready, worker.since, self._failed_starts = True, time.monotonic(), 0
                elif message == _RETIRE:
                    return self._replace(index)
                else:
                    self._finish(worker, Grade(**json.loads(message)))
        except (EOFError, OSError):
            self._replace(index, "crash")

    def _finish(self, worker: _Worker, graded: Grade) -> None:
        task, worker.since = worker.tasks.popleft(), time.monotonic()
        task.graded = graded
        if task.key is not _IN_ORDER:
            self._finished.append((task.key, graded))

    def _replace(self, index: int, status: GradeStatus | None = None) -> None:
        """Put a new worker in the place of one, and its tasks back in front of the queue.

        With a status the first of them, the one the worker was at, gets it instead: it is not retried.
        """
        worker = self._workers[index]
        code = worker.kill()
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _START_ATTEMPTS:
                hint = "run `python -c 'import math_verify'` and see its error, or raise the memory limit"
                raise CurioError(f"a grader does not start (exit code {code}, limits {self._limits})", hint, MISSING)
        if worker.tasks and status is not None:
            status = "timeout" if code == -signal.SIGPROF else status
            self._finish(worker, worker.tasks[0].item.unmatched(status))
        self._waiting.extendleft(reversed(worker.tasks))
        self._workers[index] = self._start()


def serve(
    fd: int, memory_gib: float, library_timeout_s: float, deadline_s: float, parent_pid: int, is_main_thread: bool
) -> None:
    """Grade until the other end of the pipe is gone, or until memory once passed half its limit."""
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
        return
    symbolic.library()  # now, so that the first item does not pay for it
    connection = Connection(fd)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send_bytes(_READY)
        while True:
            fields = json.loads(connection.recv_bytes())
            item = GradeItem(**fields | {"problem": Problem(**fields["problem"])})
            # The parent kills in time; this stops a worker in a long C call whose parent is gone (default action).
            signal.setitimer(signal.ITIMER_PROF, deadline_s + 1)
            try:
                graded = item.grade(library_timeout_s)
            except Exception as error:
                print(f"grader: {type(error).__name__} on problem {item.problem.id!r}", file=sys.stderr)
                status: GradeStatus = "oom" if isinstance(error, MemoryError) else "crash"
                graded = Grade(0.0, 0.0, None, None, status, "wrong")
            connection.send_bytes(json.dumps(asdict(graded)).encode())
            signal.setitimer(signal.ITIMER_PROF, 0)
            if _peak_gib() > memory_gib / 2:
                return connection.send_bytes(_RETIRE)


def _peak_gib(status: Path = Path("/proc/self/status")) -> float:
    """Most memory that this program has held. On Linux `ru_maxrss` starts with the parent's: a trainer's gigabytes."""
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
