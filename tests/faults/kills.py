"""`kill -9`, SIGTERM and Ctrl-C at random moments of each stage. The same command ends where an unbroken run ends.

    run the stage once without a fault; measure its seconds to the first result, and from there to the end
    until enough signals were sent:
        start a new run, wait for a random moment, send a signal; start it again, ...; let the last start end by itself
        compare weights, samples, metrics and answers with the unbroken run, bit for bit

`rephrase` and every fourth run of the other stages are the whole command with its launcher. The others are forks of a
process that has the imports behind it (`launch.processes=0`): most of their signals come while they work. Each kind is
compared with an unbroken run of its own kind, because their memory lies differently and so their sums round differently.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripted import ScriptedServer
from started import Started

from faults.forked import Fork, load_everything
from faults.report import Row
from faults.stages import Models, Work, cleaner, work_of

SIGNALS = {"`kill -9`": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
# A signal may come before Python has run a line of ours. Then it ends the process in its own way. Ctrl-C reaches a shell
# as a signal, and whoever started the command as a group of its own as an exit code.
CODES = {
    signal.SIGKILL: (-signal.SIGKILL,),
    signal.SIGTERM: (75, -signal.SIGTERM),
    signal.SIGINT: (-signal.SIGINT, 130),
}
STAGES = ("rephrase", "sft", "rl", "eval")
IN_A_ROW = 5
"""Signals to one run, at most."""
EARLY = 0.2
"""Share of the signals that come before the first result of a start."""
LIMIT_S = 600.0


@dataclass(frozen=True)
class Place:
    """Where the runs of a stage are, and whether they are whole commands or forks."""

    stage: str
    models: Models
    root: Path
    whole: bool

    @contextmanager
    def opened(self, name: str) -> Generator[Work]:
        """The work of one run, with an endpoint of its own where the stage asks one."""
        with ScriptedServer(cleaner) if self.stage == "rephrase" else nullcontext() as server:
            yield work_of(self.stage, self.models, self.root, name, server)

    def start(self, work: Work) -> Started:
        """Start the command."""
        if self.whole:
            return Started(self.stage, *work.arguments)
        return Fork(self.stage, *work.arguments, "launch.processes=0", folder=self.root)


@dataclass(frozen=True)
class Unbroken:
    """A run without a fault: what it made, and its seconds until its first result and from there to its end."""

    result: Any
    start_s: float
    work_s: float


@dataclass
class Broken:
    """What was done to one run: signals sent, work that each one cost, seconds of the recovery, what went wrong."""

    sent: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    recover_s: float | None = None
    trouble: str | None = None


def kills(folder: Path, models: Models, seed: int, jobs: int, times: int) -> list[Row]:
    """Send `times` signals, an equal number to each stage."""
    load_everything()
    folder.mkdir(parents=True)
    return [row for stage in STAGES for row in _stage(stage, models, folder, seed, jobs, times // len(STAGES))]


def _stage(stage: str, models: Models, folder: Path, seed: int, jobs: int, times: int) -> list[Row]:
    rows = {name: Row(f"`{stage}`: {name} at a random moment") for name in SIGNALS}
    places = [Place(stage, models, folder, True)] + [Place(stage, models, folder, False)] * (3 * (stage != "rephrase"))
    left, broken, runs = [list(SIGNALS)[number % len(SIGNALS)] for number in range(times)], [], 0
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        unbroken = pool.map(_unbroken, places[:2], chunksize=1)
        while left:
            work = [
                (places[number % len(places)], unbroken[number % len(places) > 0], f"{seed}-{number}", names)
                for number, names in enumerate(_parts(left), start=runs)
            ]
            done = pool.starmap(_break, work, chunksize=1)
            broken, runs, left = broken + done, runs + len(work), []
            for (_, _, _, names), run in zip(work, done, strict=True):
                left += names[len(run.sent) :] if run.trouble is None else []
    for name, row in rows.items():
        sent = [(run, number) for run in broken for number, other in enumerate(run.sent) if other == name]
        for run, _ in sent:
            row.count(run.trouble)
        row.recover_s = [run.recover_s for run in broken if run.sent[-1:] == [name] and run.recover_s is not None]
        most = max((run.lost[number] for run, number in sent), default=0)
        row.lost = f"at most {most} {'requests' if stage == 'rephrase' else 'steps'}" if most else "nothing"
    return list(rows.values())


def _parts(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + IN_A_ROW] for start in range(0, len(names), IN_A_ROW)]


def _unbroken(place: Place) -> Unbroken:
    with place.opened(f"unbroken-{'whole' if place.whole else 'fork'}") as work:
        begun, before = time.monotonic(), work.stamp()
        started = place.start(work)
        while work.stamp() == before and started.process.poll() is None:
            time.sleep(0.002)
        first = time.monotonic()
        done = started.wait_done(LIMIT_S)
        assert done.returncode == 0, f"{place.stage} fails without a fault:\n{done.stderr[-3000:]}"
        return Unbroken(work.result(), first - begun, time.monotonic() - first)


def _break(place: Place, unbroken: Unbroken, name: str, names: Sequence[str]) -> Broken:
    """Send these signals to one run, one after another, then let it end and compare. Those for which it ends too early
    are not sent."""
    with place.opened(f"broken-{name}") as work:
        draw, broken, wasted = random.Random(f"{place.stage}-{name}"), Broken(), 0
        for number in names:
            started = place.start(work)
            if not _wait_for_a_moment(started, work, unbroken, draw):
                if started.wait_done(LIMIT_S).returncode:
                    broken.trouble = f"{work.folder}: ended by itself: {started.process.args}"
                break
            broken.sent.append(number)
            broken.trouble = _send(started, SIGNALS[number])
            broken.lost.append(max(0, work.done() - wasted - work.kept()))
            wasted += broken.lost[-1] if work.server else 0
            if broken.trouble:
                return broken
        _resume(place, work, unbroken, broken)
        return broken


def _resume(place: Place, work: Work, unbroken: Unbroken, broken: Broken) -> None:
    saved, at, begun = work.saved(), work.done(), time.monotonic()
    started = place.start(work)
    while started.process.poll() is None and work.done() <= at and time.monotonic() < begun + LIMIT_S:
        time.sleep(0.01)
    if work.done() > at:
        broken.recover_s = time.monotonic() - begun
    done = started.wait_done(LIMIT_S)
    if done.returncode:
        broken.trouble = f"{work.folder}: ended with {done.returncode}: {done.stderr[-1500:]}"
    elif work.result() != unbroken.result:
        broken.trouble = f"{work.folder}: the result is not that of the unbroken run"
    elif not saved <= work.saved():
        broken.trouble = f"{work.folder}: what was saved at the last signal is not there any more"


def _wait_for_a_moment(started: Started, work: Work, unbroken: Unbroken, draw: random.Random) -> bool:
    """False if the process ends before the moment comes."""
    early, share, before = draw.random() < EARLY, draw.random(), work.stamp()
    end = time.monotonic() + share * unbroken.start_s
    while not early and work.stamp() == before and started.process.poll() is None:
        time.sleep(0.002)
        end = time.monotonic() + share * unbroken.work_s / 2
    while time.monotonic() < end and started.process.poll() is None:
        time.sleep(0.002)
    return started.process.poll() is None


def _send(started: Started, number: signal.Signals) -> str | None:
    """Send the signal as it comes in practice; returns what went wrong.

    `kill -9` and SIGTERM go to the command, and Ctrl-C to all that the terminal has in its foreground.
    """
    (os.killpg if number == signal.SIGINT else os.kill)(started.process.pid, number)
    done = started.wait_done(LIMIT_S)
    started.wait_until_gone()
    if done.returncode not in (0, *CODES[number]):  # 0: it was about to end
        return f"{done.args} ended with {done.returncode} after {number.name}: {done.stderr[-1500:]}"
    return f"a traceback after {number.name}: {done.stderr[-1500:]}" if "Traceback" in done.stderr else None
