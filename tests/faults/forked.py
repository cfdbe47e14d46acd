"""A command in a fork of this process, which has the imports behind it: isolated, with limits, in a tenth of the time.

This process must not have computed anything with torch, and has no thread while it forks.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 60.0
MEMORY_BYTES = 12 * 2**30


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code, as in subprocess; None where it had to be killed after `LIMIT_S`.
        out: what it printed to stdout.
        err: what it printed to stderr.
        seconds: how long it took.
    """

    code: int | None
    out: str
    err: str
    seconds: float


def load_everything() -> None:
    """Import what the commands import, so that the forks need not."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import hypothesis.strategies  # noqa: F401
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


def forked(
    arguments: tuple[str, ...], folder: Path, limit_s: float = LIMIT_S, before: Callable[[], object] = lambda: None
) -> Ended:
    """Run `curiosft ARGUMENTS` in `folder`, and `before` ahead of it in the same process."""
    out, err, begun = folder / ".stdout", folder / ".stderr", time.monotonic()
    child = os.fork()
    if child == 0:
        _command(arguments, folder, out, err, before)
    code: int | None = None
    while time.monotonic() < begun + limit_s:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.005)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    said = [file.read_text(encoding="utf-8", errors="replace") for file in (out, err)]
    return Ended(code, *said, time.monotonic() - begun)


def _command(arguments: tuple[str, ...], folder: Path, out: Path, err: Path, before: Callable[[], object]) -> None:
    """The child: it never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for number, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
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
