"""What a check of a data set saw, and the exit code that follows from it."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

from curiosft_cli.run.errors import BAD_INPUT, MISSING
from curiosft_cli.tools.data.contamination import Hit
from curiosft_cli.tools.data.row_checks import Findings, layout

CONTAMINATION = "contamination"


@dataclass
class DataReport:
    """What a check saw.

    Attributes:
        source: what was checked.
        columns: role to column, as in the first readable row.
        has: roles that at least one row fills.
        repeats: (first row, later row) of the same question and gold.
        prompt_tokens: of each row, none where they were not counted.
        response_tokens: of each row that has a response.
        limits: the longest prompt and response in tokens.
        benchmarks: questions compared with, by benchmark.
        unchecked: what could not be looked at, and why.
        peak_mib: largest memory of this process, and of the largest child.
    """

    source: str
    rows: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    has: set[str] = field(default_factory=set)
    findings: Findings = field(default_factory=Findings)
    repeats: list[tuple[int, int]] = field(default_factory=list)
    prompt_tokens: array[int] = field(default_factory=lambda: array("L"))
    response_tokens: array[int] = field(default_factory=lambda: array("L"))
    limits: tuple[int, int] = (0, 0)
    languages: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    hits: list[Hit] = field(default_factory=list)
    benchmarks: dict[str, int] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    peak_mib: tuple[float, float] = (0.0, 0.0)

    @property
    def layout(self) -> str:
        """The layout's name."""
        return layout(self.columns)

    def exit_code(self, repaired: frozenset[int] | None = None) -> int:
        """0 clean, 2 problems, 3 something could not be looked at.

        Args:
            repaired: rows that the copy just written leaves out or mends; their problems are solved.
        """
        left = [set(self.findings.rows[name]) - (repaired or frozenset()) for name in self.findings.problems()]
        if any(left) or not self.rows:
            return BAD_INPUT
        return MISSING if self.unchecked else 0

    def to_drop(self, *, broken: bool, contaminated: bool) -> set[int]:
        """Rows that a repaired copy leaves out; of rows that repeat each other the first good one stays.

        Args:
            broken: leave out what is wrong with the data.
            contaminated: leave out questions of a benchmark.
        """
        drop = set(self.findings.rows.get("contaminated", ())) if contaminated else set()
        if not broken:
            return drop
        drop |= self.findings.to_repair("drop", but="repeated")
        kept: set[int] = set()
        for first, row in self.repeats:
            if first in drop and first not in kept and row not in drop:
                kept.add(first)  # this row stands for the first one
            else:
                drop.add(row)
        return drop
