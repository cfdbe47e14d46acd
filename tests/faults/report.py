"""What was done to the tool and how it came out: rows of a table, and the place of that table in the docs."""

from __future__ import annotations

import json
import os
import platform
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: written by `make faults` -->", "<!-- end -->"


@dataclass
class Row:
    """One fault.

    Attributes:
        fault: what was done.
        times: how often.
        held: how often it came out as promised.
        lost: the most finished work that had to be done again, over all times; empty where nothing can be lost.
        recover_s: seconds of each recovery: from the same command until there is new work.
        failures: what happened where the promise was broken, with what repeats it.
    """

    fault: str
    times: int = 0
    held: int = 0
    lost: str = ""
    recover_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def count(self, trouble: str | None) -> None:
        """Add one time; `trouble` says how the promise was broken, None that it was kept."""
        with self._lock:
            self.times += 1
            self.held += trouble is None
            self.failures += [] if trouble is None else [trouble]


@dataclass(frozen=True)
class Group:
    """The rows of one group, and how long it took."""

    name: str
    rows: Sequence[Row]
    seconds: float

    def as_json(self) -> str:
        """One line for programs."""
        times, held = (sum(getattr(row, name) for row in self.rows) for name in ("times", "held"))
        rows = [asdict(row) for row in self.rows]
        return json.dumps({"group": self.name, "times": times, "held": held, "seconds": self.seconds, "rows": rows})


def table(groups: Sequence[Group], seed: int) -> str:
    """The table of the page, with the machine and the day."""
    times, held = (sum(getattr(row, n) for group in groups for row in group.rows) for n in ("times", "held"))
    minutes = sum(group.seconds for group in groups) / 60
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({platform.machine()}), Linux, Python "
        f"{platform.python_version()}; seed {seed}; {minutes:.0f} minutes. {held} of {times} faults came out as "
        "promised.",
        "",
        "| fault | times | as promised | lost | time to recover |",
        "|---|---:|---:|---|---:|",
    ]
    for group in groups:
        for row in group.rows:
            recover = f"{sum(row.recover_s) / len(row.recover_s):.1f} s" if row.recover_s else ""
            lines.append(f"| {row.fault} | {row.times} | {row.held} | {row.lost} | {recover} |")
    return "\n".join(lines)


def write_page(text: str, page: Path = PAGE) -> None:
    """Put the table between the markers of the page."""
    before = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    after, found = pattern.subn(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", before)
    assert found == 1, f"{page} has no markers"
    page.write_text(after, encoding="utf-8")
