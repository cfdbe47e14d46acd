"""The command line in tests: inside this process, without a new interpreter's imports, or in a process of its own."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

from curiosft_cli.cli.main import main


def curiosft(
    *arguments: object, folder: Path | None = None, file_limit: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command.

    Args:
        arguments: what stands behind `curiosft`.
        folder: where it runs.
        file_limit: see `largest_file`.
    """
    command = ["curiosft", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", command),
        redirect_stdout(out),
        redirect_stderr(err),
        chdir(folder or Path.cwd()),
        largest_file(file_limit),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    assert isinstance(code, int), code
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def curiosft_in_a_process(
    *arguments: object, check: bool = True, limit_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run one command in a process of its own.

    Args:
        arguments: what stands behind `curiosft`.
        check: fail the test when the command fails.
        limit_s: seconds it may take.
    """
    command = [sys.executable, "-m", "curiosft_cli.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    if check and done.returncode:
        pytest.fail(f"{' '.join(command[3:])} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done


def last_of_each(*arguments: object) -> list[str]:
    """The arguments, with only the last of those that set the same key: a command refuses a key that is given twice."""
    return list({str(argument).partition("=")[0]: str(argument) for argument in arguments}.values())


@contextmanager
def largest_file(size: int | None) -> Generator[None]:
    """No file of this process may grow beyond `size` bytes, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
