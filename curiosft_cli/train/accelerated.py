"""`accelerate launch` for a command of ours: it leaves signals to the command, and passes on how a process ended."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys

from curiosft_cli.run.errors import BAD_INPUT
from curiosft_cli.run.text import one_line, show
from curiosft_cli.run.workers import report_end


def main() -> None:
    """Launch what the arguments name; exit with the code of the process that failed first, 1 if a signal ended it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not SIG_IGN: the processes would inherit it.
        signal.signal(number, lambda *_: None)
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch_command(launch_command_parser().parse_args())
    except subprocess.CalledProcessError as error:
        _end(0, error.returncode)
    except ChildFailedError as error:
        # When one dies, the others fail because of it: a signal, and not the launcher's own SIGTERM, is the cause.
        by_time = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
        killed = [(rank, one) for rank, one in by_time if one.exitcode < 0 and one.exitcode != -signal.SIGTERM]
        rank, failure = (killed or by_time)[0]
        _end(rank, failure.exitcode)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        show(f"curiosft: accelerate cannot start the processes: {one_line(reason)}", sys.stderr)
        raise SystemExit(BAD_INPUT) from None


def _end(rank: int, code: int) -> None:
    report_end(rank, code)
    raise SystemExit(code if code > 0 else 1)


if __name__ == "__main__":
    main()
