"""The entry point: from arguments to one command, its errors and its exit code."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from curiosft_cli.cli import configuration, data_and_model, pipeline, results  # noqa: F401  (they declare the commands)
from curiosft_cli.cli.app import app, launch_arguments
from curiosft_cli.run.text import one_line, show


def _show_version(value: bool) -> None:
    if value:
        from curiosft_cli import __version__

        show(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point: one line for errors that the user can correct, a traceback for bugs, documented exit codes."""
    arguments = sys.argv[1:]
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, launch_arguments[:] = arguments[:cut], arguments[cut + 1 :]
    from curiosft_cli.run.errors import INTERRUPTED, TERMINATED, CurioError, file_trouble
    from curiosft_cli.run.processes import hide_exits_in_tasks, ignore_stop_signals, isolated

    os.environ.update(isolated(os.environ))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    hide_exits_in_tasks()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # typer answers KeyboardInterrupt with code 1
        signal.signal(signal.SIGINT, lambda *_: sys.exit(INTERRUPTED))
    try:
        app(args=arguments, prog_name="curiosft")
    except CurioError as error:
        show(f"curiosft: {one_line(str(error))}", sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (OSError, RecursionError) as error:
        known = file_trouble(error)
        if known is None:
            raise
        show(f"curiosft: {one_line(str(known))}", sys.stderr)
        raise SystemExit(known.exit_code) from None
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _interrupted(INTERRUPTED)
        if stop.code == TERMINATED:
            show("curiosft: stopped by SIGTERM; the same command continues", sys.stderr)
        raise
    finally:
        ignore_stop_signals()


def _interrupted(code: int) -> NoReturn:
    """End after Ctrl-C: by the signal itself where a shell may wait, because its loop goes on after an exit code."""
    show("curiosft: interrupted; the same command continues", sys.stderr)
    if os.getpgrp() != os.getpid() or sys.stderr.isatty():
        sys.stderr.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    raise SystemExit(code) from None
