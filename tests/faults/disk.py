"""A full disk at chosen moments: exit code 4, one line, nothing lost; with space again the same command goes on.

The runs lie on a small file system in memory. While the process stands still, a file fills it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from faults.forked import Fork, load_everything
from faults.kills import LIMIT_S, Place
from faults.report import Row
from faults.stages import Models, Work

MIB = 2**20
# Name of the moment: the stage, and from how many units on the disk is full.
MOMENTS = {
    "a checkpoint of `sft`": ("sft", (2, 28)),
    "rollouts or a checkpoint of `rl`": ("rl", (1, 6)),
    "samples of `eval`": ("eval", (1, 150)),
    "the grades and the report of `eval`": ("eval", (160, 160)),
}
TIMES = 3


def disk(folder: Path, models: Models, seed: int) -> list[Row]:
    """Fill the disk at each moment, several times."""
    load_everything()
    draw, rows = random.Random(seed), []
    with small_disk(folder / "disk") as place:
        for moment, (stage, (first, last)) in MOMENTS.items():
            row = Row(f"the disk is full during {moment}")
            with Place(stage, models, place, whole=False).opened("unbroken") as work:
                assert Fork(stage, *arguments(work), folder=folder).wait_done(LIMIT_S).returncode == 0
                expected = work.result()
            for number in range(TIMES):
                with Place(stage, models, place, whole=False).opened(f"full-{number}") as work:
                    row.count(_fill(work, draw.randint(first, last), place, folder, row) or _differs(work, expected))
            for run in place.iterdir():
                subprocess.run(["rm", "-rf", str(run)], check=True)
            rows.append(row)
    return rows


def arguments(work: Work) -> tuple[str, ...]:
    """Of a run inside this process."""
    return (*work.arguments, "launch.processes=0")


@contextmanager
def small_disk(folder: Path, size_mib: int = 64) -> Generator[Path]:
    """Mount a file system in memory; needs the right to mount."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(work: Work, units: int, place: Path, folder: Path, row: Row) -> str | None:
    """Fill the disk after so many units, then free it; returns what went wrong."""
    started = Fork(work.stage, *arguments(work), folder=folder)
    while work.done() < units and started.process.poll() is None:
        time.sleep(0.001)
    os.kill(started.process.pid, signal.SIGSTOP)
    filler = place / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for size in (MIB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    os.kill(started.process.pid, signal.SIGCONT)
    done = started.wait_done(LIMIT_S)
    filler.unlink()
    lines = [line for line in done.stderr.splitlines() if line.startswith("curiosft: ")]
    if done.returncode == 0:
        return None  # it needed no more space
    if done.returncode != 4 or len(lines) != 1 or "Traceback" in done.stderr:
        return f"{work.folder}, full after {units}: exit code {done.returncode}: {done.stderr[-1500:]}"
    begun = time.monotonic()
    again = Fork(work.stage, *arguments(work), folder=folder).wait_done(LIMIT_S)
    row.recover_s.append(time.monotonic() - begun)
    return f"{work.folder}: cannot go on: {again.stderr[-1000:]}" if again.returncode else None


def _differs(work: Work, expected: object) -> str | None:
    return None if work.result() == expected else f"{work.folder}: the result is not that of an unbroken run"
