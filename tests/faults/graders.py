"""Grader processes die while they grade: at most the grade in hand is lost, and it is counted as a crash."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

from faults.disk import arguments
from faults.forked import Fork, load_everything
from faults.kills import LIMIT_S, Place
from faults.report import Row
from faults.stages import Models

TIMES = 6


def graders(folder: Path, models: Models, seed: int, most: int = 30) -> list[Row]:
    """Kill a grader process twice in each run: the third one that does not start ends the command with a line.

    A run that ends before one was killed does not count; another one is drawn, of `most` for a stage.
    """
    load_everything()
    folder.mkdir(parents=True)
    rows = []
    for stage in ("eval", "rl"):
        place, row = Place(stage, models, folder, whole=False), Row(f"grader processes are killed during `{stage}`")
        for number in range(most):
            if row.times == TIMES // 2:
                break
            draw = random.Random(f"{seed}-{stage}-{number}")
            with place.opened(f"graders-{stage}-{number}") as work:
                started, killed = Fork(stage, *arguments(work), folder=folder), 0
                while started.process.poll() is None:
                    for pid in started.alive() if killed < 2 else ():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(pid), signal.SIGKILL)
                            killed += 1
                    time.sleep(draw.random())
                done = started.wait_done(LIMIT_S)
                if not killed and done.returncode == 0:
                    continue
                lost = _crashes(work.folder, stage)
                sound = done.returncode == 0 and killed and 0 <= lost <= killed
                row.count(None if sound else f"{work.folder}: {killed} killed, {lost} lost: {done.stderr[-1000:]}")
                row.lost = f"{killed} killed, {lost} grades lost" if row.times == 1 else row.lost
        rows.append(row)
    return rows


def _crashes(folder: Path, stage: str) -> int:
    """Grades that were counted as lost; -1 if a grade is missing without being counted."""
    if stage == "eval":
        told = json.loads((folder / "base/arithmetic/summary.json").read_text())
        counts = told["grader_status"]
        return -1 if sum(counts.values()) != told["questions"] * told["samples"] else counts.get("crash", 0)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return round(sum(16 * row.get("reward/grader_crash", 0.0) for row in rows))
