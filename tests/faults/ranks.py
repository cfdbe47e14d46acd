"""One of two training processes dies, is stopped, stands still or computes without end; or both end with their command.

The command ends within a minute with a line that names the process. The same command ends where an unbroken run ends.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from started import Started, rank_process

from faults.kills import CODES, LIMIT_S
from faults.report import Row
from faults.stages import SFT, Models, Work

WITHIN_S = 60.0
TIMES = 2
STILL = "CURIOSFT_TEST_STILL"
"""Environment variable: a process hangs while the file of this name, with its rank, exists: for as many seconds as it
holds it sleeps in turn, or computes if that is 0."""
OBJECTIVE = f"""
import os, time
from pathlib import Path
from curiosft_cli.objectives import TokenLoss, TokenRows

def patient(rows: TokenRows) -> TokenLoss:
    while (still := Path(os.environ["{STILL}"] + os.environ["RANK"])).exists():
        time.sleep(float(still.read_text() or 1))
    return TokenLoss(-rows.logp)
"""


@dataclass(frozen=True)
class Pair:
    """A run of two ranks, and the command that started it last."""

    work: Work
    started: Started

    @classmethod
    def start(cls, models: Models, root: Path, run: str) -> Pair:
        """Start the run, or go on with it."""
        settings = [word for word in SFT if not word.startswith(("sft.lora", "sft.teacher"))]
        words = (f"sft.objective={root / 'patient.py'}:patient", f"model.path={models.tiny}", "launch.processes=2")
        work = Work("sft", ("sft", *settings, *words, f"run.root={root}", f"run.name={run}"), root / run / "sft")
        return cls(work, Started("sft", *work.arguments, **{STILL: str(root / f"{run}-still-")}))

    def pid(self, rank: int) -> int:
        """Of one of the two processes."""
        return rank_process(self.work.folder, str(rank))


def _hang(sleep_s: int, pair: Pair, rank: int) -> None:
    Path(f"{pair.work.folder.parent}-still-{rank}").write_text(str(sleep_s), encoding="ascii")


def _signal(number: signal.Signals, pair: Pair, rank: int) -> None:
    os.kill(pair.pid(rank), number)


ONE: dict[str, Callable[[Pair, int], None]] = {
    "stands still in a step": partial(_hang, 1),
    "computes without end": partial(_hang, 0),
    "is stopped (SIGSTOP)": partial(_signal, signal.SIGSTOP),
    "is killed": partial(_signal, signal.SIGKILL),
}
BOTH = {"`kill -9`": signal.SIGKILL, "SIGTERM": signal.SIGTERM}


def ranks(folder: Path, models: Models, jobs: int) -> list[Row]:
    """Each fault for each rank, and each signal to the command as often."""
    folder.mkdir(parents=True)
    (folder / "patient.py").write_text(OBJECTIVE, encoding="utf-8")
    whole = Pair.start(models, folder, "unbroken")
    done = whole.started.wait_done(LIMIT_S)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {what: Row(f"one of two ranks of `sft` {what}") for what in ONE}
    rows |= {what: Row(f"`sft` on two ranks: {what} to the command") for what in BOTH}

    def run(what: str, rank: int) -> int:
        trouble, lost = _broken(models, folder, what, rank)
        rows[what].count(trouble or _goes_on(models, folder, what, rank, whole))
        return lost

    with ThreadPoolExecutor(jobs) as pool:
        for what, row in rows.items():
            most = max(pool.map(partial(run, what), range(TIMES)))
            row.lost = f"at most {most} steps" if most else "nothing"
    return list(rows.values())


def _name(what: str, rank: int) -> str:
    return "-".join(["broken", *re.findall(r"\w+", what), str(rank)])


def _broken(models: Models, root: Path, what: str, rank: int) -> tuple[str | None, int]:
    """Start a run and break it; returns what went wrong, and the finished steps that are lost."""
    pair = Pair.start(models, root, _name(what, rank))
    pair.started.wait_for(lambda: pair.work.done() >= 6, LIMIT_S)
    begun = time.monotonic()
    if what in ONE:
        pid = pair.pid(rank)
        ONE[what](pair, rank)
    else:
        os.kill(pair.started.process.pid, BOTH[what])
    done = pair.started.wait_done(LIMIT_S)
    took = time.monotonic() - begun
    Path(f"{pair.work.folder.parent}-still-{rank}").unlink(missing_ok=True)
    pair.started.wait_until_gone()
    lost = pair.work.done() - pair.work.kept()
    if what in BOTH:
        sound = done.returncode in CODES[BOTH[what]]
    else:
        named = [line for line in done.stderr.splitlines() if line.startswith(f"curiosft: rank {rank} (process {pid})")]
        sound = done.returncode == 1 and len(named) == 1 and took < WITHIN_S
    if sound and "Traceback" not in done.stderr:
        return None, lost
    return (
        f"{pair.work.folder}: {what} ({rank}), code {done.returncode} after {took:.0f} s: {done.stderr[-1500:]}",
        lost,
    )


def _goes_on(models: Models, root: Path, what: str, rank: int, whole: Pair) -> str | None:
    """Run the same command again; returns what went wrong."""
    pair = Pair.start(models, root, _name(what, rank))
    done = pair.started.wait_done(LIMIT_S)
    if done.returncode:
        return f"{pair.work.folder}: cannot go on: {done.stderr[-1500:]}"
    same = pair.work.result() == whole.work.result()
    return None if same else f"{pair.work.folder}: the result is not that of the unbroken run"
