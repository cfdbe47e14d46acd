"""`kill -9`, SIGTERM and Ctrl-C at random moments of each stage. The same command ends where an unbroken run ends.

run the stage once without a fault; measure its seconds to the first result, and from there to the end
until enough signals were sent:
    start a new run, wait for a random moment, send a signal; start it again, ...; let the last start end by itself
    compare weights, samples, metrics and answers with the unbroken run, bit for bit
"""

from __future__ import annotations

import os
import queue
import random
import signal
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripted import ScriptedServer
from started import Started

from faults.report import Row
from faults.stages import Models, Work, cleaner, works

SIGNALS = {"`kill -9`": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
# A signal may come before Python has run a line of ours. Then it ends the process in its own way.
CODES = {
    signal.SIGKILL: (-signal.SIGKILL,),
    signal.SIGTERM: (75, -signal.SIGTERM),
    signal.SIGINT: (-signal.SIGINT,),
}
IN_A_ROW = 5
"""Signals to one run, at most."""
EARLY = 0.2
"""Share of the signals that come before the first result of a start."""
LIMIT_S = 300.0


@dataclass(frozen=True)
class Unbroken:
    """A run without a fault: what it made, and its seconds until its first result and from there to its end."""

    result: Any
    start_s: float
    work_s: float


@dataclass
class Broken:
    """What was sent to one run: names of signals, work that each one cost, seconds of the recovery, what went wrong."""

    names: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    recover_s: float | None = None
    trouble: str | None = None


def kills(folder: Path, models: Models, seed: int, jobs: int, times: int) -> list[Row]:
    """Send `times` signals, an equal number to each stage."""
    rows: list[Row] = []
    for stage, work in works(models, folder).items():
        rows += _stage(stage, work, seed, jobs, times // 4)
    return rows


def _stage(stage: str, work: Callable[..., Work], seed: int, jobs: int, times: int) -> list[Row]:
    rows = {name: Row(f"`{stage}`: {name} at a random moment") for name in SIGNALS}
    with _opened(stage, work, "whole") as whole:
        unbroken, unit = _unbroken(whole), whole.unit
    left: queue.SimpleQueue[str] = queue.SimpleQueue()
    for number in range(times):
        left.put(list(SIGNALS)[number % len(SIGNALS)])

    def run(worker: int) -> list[Broken]:
        done = []
        while not left.empty():
            name = f"broken-{worker}-{len(done)}"
            with _opened(stage, work, name) as broken:
                done.append(_break(broken, unbroken, random.Random(f"{seed}-{stage}-{name}"), left))
        return done

    with ThreadPoolExecutor(jobs) as pool:
        ended = [broken for done in pool.map(run, range(jobs)) for broken in done]
    for name, row in rows.items():
        for broken in ended:
            for _ in range(broken.names.count(name)):
                row.count(broken.trouble)
            if broken.names[-1:] == [name] and broken.recover_s is not None:
                row.recover_s.append(broken.recover_s)
        most = max((lost for b in ended for n, lost in zip(b.names, b.lost, strict=True) if n == name), default=0)
        row.lost = f"at most {most} {unit}" if most else "nothing"
    return list(rows.values())


@contextmanager
def _opened(stage: str, work: Callable[..., Work], name: str) -> Generator[Work]:
    with ScriptedServer(cleaner) if stage == "rephrase" else nullcontext() as server:
        yield work(name, server)


def _unbroken(work: Work) -> Unbroken:
    begun = time.monotonic()
    started, before = Started(work.stage, *work.arguments), work.stamp()
    started.wait_for(lambda: work.stamp() != before, LIMIT_S)
    first = time.monotonic()
    done = started.wait_done(LIMIT_S)
    assert done.returncode == 0, f"{work.stage} fails without a fault:\n{done.stderr[-3000:]}"
    return Unbroken(work.result(), first - begun, time.monotonic() - first)


def _break(work: Work, unbroken: Unbroken, draw: random.Random, left: queue.SimpleQueue[str]) -> Broken:
    """Send up to `IN_A_ROW` signals to one run, then let it end and compare."""
    broken, wasted = Broken(), 0
    for _ in range(IN_A_ROW):
        try:
            name = left.get_nowait()
        except queue.Empty:
            break
        started = Started(work.stage, *work.arguments)
        if not _wait_for_a_moment(started, work, unbroken, draw):
            left.put(name)  # it ended before
            break
        broken.names.append(name)
        broken.trouble = _send(started, SIGNALS[name])
        broken.lost.append(max(0, work.done() - wasted - work.kept()))
        if broken.trouble:
            return broken
        wasted += broken.lost[-1] if work.server else 0
    saved, at = work.saved(), work.done()
    begun = time.monotonic()
    started = Started(work.stage, *work.arguments)
    while started.process.poll() is None and work.done() <= at and time.monotonic() < begun + LIMIT_S:
        time.sleep(0.01)
    if work.done() > at:
        broken.recover_s = time.monotonic() - begun
    done = started.wait_done(LIMIT_S)
    if done.returncode:
        broken.trouble = f"{work.folder}: ended with {done.returncode}: {done.stderr[-500:]}"
    elif work.result() != unbroken.result:
        broken.trouble = f"{work.folder}: the result is not that of the unbroken run"
    elif not saved <= work.saved():
        broken.trouble = f"{work.folder}: what was saved at the last signal is not there any more"
    return broken


def _wait_for_a_moment(started: Started, work: Work, unbroken: Unbroken, draw: random.Random) -> bool:
    """False if the process ends before the moment comes."""
    early, share, before = draw.random() < EARLY, draw.random(), work.stamp()
    end = time.monotonic() + share * unbroken.start_s
    while not early and work.stamp() == before and started.process.poll() is None:
        time.sleep(0.005)
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
        return f"{' '.join(done.args)} ended with {done.returncode} after {number.name}: {done.stderr[-500:]}"
    return f"a traceback after {number.name}: {done.stderr[-800:]}" if "Traceback" in done.stderr else None
