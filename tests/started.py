"""A `curiosft` command in a session of its own, and whether any of its processes outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

MARK = "CURIOSFT_TEST_MARK"


class Started:
    """A running `curiosft` command; every process of it carries a mark in its environment.

    Args:
        arguments: what stands behind `curiosft`.
        variables: further variables of its environment.
    """

    def __init__(self, *arguments: str | Path, **variables: str) -> None:
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "curiosft_cli.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | variables | {MARK: self.mark},
        )

    def wait_done(self, limit_s: float = 300) -> subprocess.CompletedProcess[str]:
        out, err = self.process.communicate(timeout=limit_s)
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err)

    def wait_for(self, happened: Callable[[], bool], limit_s: float = 300) -> None:
        deadline = time.monotonic() + limit_s
        while not happened():
            assert time.monotonic() < deadline, "it did not happen in time"
            assert self.process.poll() is None, (self.process.stderr or sys.stdin).read()[-3000:]
            time.sleep(0.002)

    def alive(self) -> list[str]:
        """Processes with the mark that are not defunct."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self._is_ours(entry):
                found.append(entry.name)
        return found

    def _is_ours(self, entry: Path) -> bool:
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            return state != "Z" and f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def wait_until_gone(self, limit_s: float = 20) -> None:
        deadline = time.monotonic() + limit_s
        while left := self.alive():
            assert time.monotonic() < deadline, f"processes {left} survived"
            time.sleep(0.05)


def variables(pid: int) -> list[str]:
    """The environment of a process."""
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


def rank_process(stage: Path, rank: str) -> int:
    """The process id of one rank of the training that works in this stage folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                own = variables(int(entry.name))
            except OSError:
                continue
            if f"RANK={rank}" in own and os.fsencode(stage) in words:
                return int(entry.name)
    raise AssertionError(f"no rank {rank}")
