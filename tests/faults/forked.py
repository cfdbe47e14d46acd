"""A command in a fork of this process, which has the imports behind it: isolated, with limits, in a tenth of the time.

This process must not have computed anything with torch, and has no other thread while it forks.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from started import MARK, Started

LIMIT_S = 60.0
MEMORY_BYTES = 12 * 2**30


def load_everything() -> None:
    """Import what the commands import, so that the forks need not."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import math_verify  # noqa: F401
    import openai  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401

    import curiosft_cli.cli.main
    import curiosft_cli.stages.evaluate.run
    import curiosft_cli.stages.rephrase.run
    import curiosft_cli.stages.rl.run
    import curiosft_cli.stages.sft
    import curiosft_cli.tools.compare
    import curiosft_cli.tools.grade
    import curiosft_cli.tools.pipeline  # noqa: F401


class Child:
    """A forked process, with the part of `subprocess.Popen` that `Started` uses."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, mark: str, before: Callable[[], object]) -> None:
        self.args, self.returncode = ("curiosft", *arguments), None
        self._files = [folder / f".{mark}.{name}" for name in ("stdout", "stderr")]
        self.pid = os.fork()
        if self.pid == 0:
            _command(arguments, folder, mark, self._files, before)
        while os.getpgid(self.pid) != self.pid and self.poll() is None:
            time.sleep(0.001)  # until it is in a group of its own

    def poll(self) -> int | None:
        """Its exit code, as in subprocess; None while it runs."""
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; what it printed."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.005)
        out, err = (file.read_text(encoding="utf-8", errors="replace") if file.exists() else "" for file in self._files)
        return out, err


class Fork(Started):
    """`curiosft ARGUMENTS` in `folder`, in a fork of this process.

    Args:
        arguments: what stands behind `curiosft`.
        folder: where it runs.
        before: is called ahead of it in the same process.
    """

    def __init__(self, *arguments: str, folder: Path, before: Callable[[], object] = lambda: None) -> None:
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.process = Child(arguments, folder, self.mark, before)


def forked(
    arguments: tuple[str, ...], folder: Path, limit_s: float = LIMIT_S, before: Callable[[], object] = lambda: None
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end. Return code 124: it had to be killed after `limit_s`."""
    fork = Fork(*arguments, folder=folder, before=before)
    try:
        return fork.wait_done(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(fork.process.pid, signal.SIGKILL)
        done = fork.wait_done(limit_s)
        return subprocess.CompletedProcess(done.args, 124, done.stdout, done.stderr)


def _command(
    arguments: tuple[str, ...], folder: Path, mark: str, files: list[Path], before: Callable[[], object]
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ[MARK] = mark
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for number, file in enumerate(files, start=1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", buffering=1) for number in (1, 2))
        sys.argv = ["curiosft", *arguments]
        from curiosft_cli.cli.main import main

        before()
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
