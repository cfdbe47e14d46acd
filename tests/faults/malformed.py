"""Malformed inputs: each must end with one clear line and exit code 2. No traceback, no hang."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from faults.drawn_inputs import drawn_inputs
from faults.forked import LIMIT_S, forked, load_everything
from faults.inputs import COMMANDS, Input, build_valid
from faults.literal_inputs import LITERAL
from faults.report import Row
from faults.stages import Models

LONGEST_LINE = 1500
"""Characters; a longer line isn't clear."""
BATCH = 100
cases: Sequence[Input] = ()


def malformed(folder: Path, models: Models, seed: int, jobs: int, times: int) -> list[Row]:
    """Run the literal table, and drawn inputs until there are `times` cases that were not legal after all."""
    load_everything()
    valid = folder / "valid"
    build_valid(valid, models.tiny)
    require_success(valid, folder, tuple(COMMANDS.values()))
    rows = {case.kind: Row(f"malformed {case.kind}") for case in LITERAL}
    legal: Counter[str] = Counter()
    batch, number = LITERAL[:: max(1, len(LITERAL) // times)], 0
    while sum(row.times for row in rows.values()) < times or number < 2:
        for case, ended in run_all(valid, folder, batch, jobs):
            if ended.returncode == 0 and number:
                legal[case.kind] += 1
            else:
                rows[case.kind].count(trouble(case, ended))
        number += 1
        batch = drawn_inputs(valid, seed + number, min(BATCH, times))
    for kind, count in legal.items():
        rows[kind].fault += f" ({count} more drawn ones were legal after all)"
    return list(rows.values())


def trouble(case: Input, ended: subprocess.CompletedProcess[str]) -> str | None:
    """What is wrong with the way a case ended; None if it is one clear line and exit code 2."""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("curiosft: ")]
    if ended.returncode == 124:
        what = f"still runs after {LIMIT_S:.0f} s"
    elif "Traceback" in ended.stderr:
        what = "a traceback"
    elif ended.returncode != 2:
        what = f"exit code {ended.returncode}"
    elif case.kind == "command line" and ended.stderr:
        return None  # typer says what is wrong with an option in its own way
    elif len(lines) != 1:
        what = f"{len(lines)} lines"
    elif len(lines[0]) > LONGEST_LINE:
        what = f"a line of {len(lines[0])} characters"
    else:
        return None
    return f"malformed {case.kind}, {case.name[:300]!r}: {what}: {' '.join(case.arguments())[:300]}: {ended.stderr[-1500:]}"


def require_success(valid: Path, folder: Path, commands: Sequence[tuple[str, ...]]) -> None:
    """Without a fault each command must succeed, or its failures would prove nothing."""
    for command in commands:
        shutil.copytree(valid, folder / "untouched")
        ended = forked(command, folder / "untouched")
        assert ended.returncode == 0, f"{command} fails without a fault: {ended.stderr}"
        shutil.rmtree(folder / "untouched")


def run_all(
    valid: Path, folder: Path, batch: Sequence[Input], jobs: int
) -> list[tuple[Input, subprocess.CompletedProcess[str]]]:
    """Run each case in a copy of the valid files."""
    global cases
    cases = batch  # the workers are forks: they have it too
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs) as pool:
        work = [(valid, folder / f"case-{number}", number) for number in range(len(batch))]
        ended = pool.starmap(_one, work, chunksize=1)
    return list(zip(batch, ended, strict=True))


def _one(valid: Path, folder: Path, number: int) -> subprocess.CompletedProcess[str]:
    shutil.copytree(valid, folder)
    cases[number].damage(folder)
    ended = forked(cases[number].arguments(), folder)
    shutil.rmtree(folder, ignore_errors=True)
    return ended
