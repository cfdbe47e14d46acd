"""The user's terminal, seen from the processes of a stage.

On a terminal a command sends the standard error of its stage to log.txt, where libraries may write what they like, and
names the terminal to the stage, whose own messages go there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from pathlib import Path
from typing import TextIO

TERMINAL = "CURIOSFT_TERMINAL"
"""Environment variable with the device file of the terminal."""
SHOW_CURSOR = "\x1b[?25h"


def terminal() -> str | None:
    """The device file of the terminal of this process's standard error, if it can be opened by that name."""
    try:
        name = os.ttyname(sys.stderr.fileno())
        os.close(os.open(name, os.O_WRONLY | os.O_NOCTTY))
    except (OSError, ValueError):  # no terminal, no file, or one of another user
        return None
    return name


def messages() -> TextIO:
    """Where messages for the user go: the terminal that the command named, else standard error."""
    name = os.environ.get(TERMINAL)
    return sys.stderr if name is None else _opened(name)


@functools.cache
def _opened(name: str) -> TextIO:
    return os.fdopen(os.open(name, os.O_WRONLY | os.O_NOCTTY), "w", encoding="utf-8", errors="replace")


def restore(name: str) -> None:
    """Show the cursor again: a process that drew a bar was perhaps killed. The terminal may be gone."""
    with contextlib.suppress(OSError):
        Path(name).write_text(SHOW_CURSOR, encoding="ascii")
