"""The findings of `curiosft data check`: as one screen for people, as one object for programs, and the exit code."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curiosft_cli.run.errors import BAD_INPUT, MISSING
from curiosft_cli.run.text import one_line
from curiosft_cli.tools.data.contamination import Hit
from curiosft_cli.tools.data.row_checks import CHECKS, Findings, layout

CONTAMINATION = "contamination"
QUANTILES = {"median": 0.5, "95 %": 0.95, "99 %": 0.99, "longest": 1.0}
NEEDED = {"gold": "rl and eval need one", "response": "sft needs one"}


@dataclass
class DataReport:
    """Everything that a check found.

    Attributes:
        source: the data that was checked.
        columns: role to column, as in the first readable row.
        has: roles that at least one row fills.
        repeats: (first row, later row) of the same question and gold.
        prompt_tokens: of each row; empty where tokens were not counted.
        response_tokens: of each row that has a response.
        limits: the longest prompt and the longest response, in tokens.
        benchmarks: number of questions that the rows were compared with, by benchmark.
        unchecked: what could not be checked, and why.
        optional: checks that the user did not name: leaving one out does not change the exit code.
        peak_mib: peak memory of this process and of its largest child, in MiB.
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
    optional: set[str] = field(default_factory=set)
    seconds: float = 0.0
    peak_mib: tuple[float, float] = (0.0, 0.0)

    @property
    def layout(self) -> str:
        """The layout's name."""
        return layout(self.columns)

    def exit_code(self, repaired: frozenset[int] | None = None) -> int:
        """0: no problem; 2: problems; 3: something that the user named could not be checked.

        Args:
            repaired: rows that the repaired copy leaves out or cleans; their problems do not count.
        """
        left = [set(self.findings.rows[name]) - (repaired or frozenset()) for name in self.findings.problems()]
        if any(left) or not self.rows:
            return BAD_INPUT
        return MISSING if self.unchecked.keys() - self.optional else 0

    def to_drop(self, *, broken: bool, contaminated: bool) -> set[int]:
        """Rows that a repaired copy leaves out. Of rows that repeat each other, it keeps the first good one.

        Args:
            broken: leave out broken rows.
            contaminated: leave out questions that a benchmark has.
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


def as_json(report: DataReport) -> dict[str, Any]:
    """The whole report, with all row numbers."""
    findings = report.findings
    return {
        "source": report.source,
        "format": _format(report.source),
        "layout": report.layout,
        "rows": report.rows,
        "columns": report.columns,
        "missing": _missing(report),
        "tokens": {
            name: {**quantiles(values), "limit": limit, "over": sum(value > limit for value in values)}
            for name, values, limit in _lengths(report)
            if values
        },
        "languages": dict(report.languages.most_common()),
        "sources": dict(report.sources.most_common()),
        "problems": {
            name: {
                "title": check.title,
                "fix": check.fix,
                "problem": check.problem,
                "rows": sorted(findings.rows[name]),
                "examples": {str(row): detail for row, detail in sorted(findings.details[name])},
            }
            for name, check in CHECKS.items()
            if name in findings.rows
        },
        "contamination": {"benchmarks": report.benchmarks, "hits": [asdict(hit) for hit in report.hits]},
        "unchecked": report.unchecked,
        "seconds": round(report.seconds, 1),
        "peak_mib": {"self": round(report.peak_mib[0]), "largest_child": round(report.peak_mib[1])},
    }


def of_rows(report: DataReport, show: int) -> str:
    """What the rows alone show, with up to `show` row numbers per problem."""
    lines = [f"{report.source}: {_format(report.source)}, {report.layout} layout, {report.rows:,} rows"]
    lines.append("columns    " + " · ".join(f"{role} {column}" for role, column in report.columns.items()))
    if missing := _missing(report):
        lines.append("missing    " + " · ".join(f"{role} ({why})" for role, why in missing.items()))
    for name, values, limit in _lengths(report):
        if values:
            over = sum(value > limit for value in values)
            found = ", ".join(f"{quantile} {value:,}" for quantile, value in quantiles(values).items())
            lines.append(f"{name:10} tokens: {found}; over {limit:,}: {over:,} ({over / len(values):.1%})")
    lines += [f"language   {_shares(report.languages)}", f"source     {_shares(report.sources)}"]
    lines += [
        line
        for name in sorted(CHECKS, key=lambda name: not CHECKS[name].problem)
        for line in _finding(report, name, show)
    ]
    return "\n".join(map(one_line, lines))


def of_benchmarks(report: DataReport, show: int) -> str:
    """What the benchmarks show, what could not be checked, and the end of the report."""
    lines = []
    if report.benchmarks:
        hit = Counter(row.benchmark for row in report.hits)
        lines.append("benchmarks " + ", ".join(f"{name} {hit[name]} hits" for name in report.benchmarks))
        lines += _finding(report, "contaminated", show)
    lines += [f"NOT CHECKED {what}: {why}" for what, why in report.unchecked.items()]
    if not report.findings.problems():
        lines.append("no problem found" if report.rows else "no rows")
    lines.append(
        f"{report.seconds:.0f} s, peak memory {report.peak_mib[0]:,.0f} MiB "
        f"and {report.peak_mib[1]:,.0f} MiB in the largest grader process"
    )
    return "\n".join(map(one_line, lines))


def quantiles(values: array[int]) -> dict[str, int]:
    """Quantiles of the values, by nearest rank."""
    ordered = sorted(values)
    return {name: ordered[max(0, -int(-len(ordered) * at // 1) - 1)] for name, at in QUANTILES.items()}


def _finding(report: DataReport, name: str, show: int) -> Iterator[str]:
    if name not in report.findings.rows:
        return
    check, rows = CHECKS[name], sorted(report.findings.rows[name])
    more = f", and {len(rows) - show:,} more" if len(rows) > show else ""
    kind = "PROBLEM" if check.problem else "note"
    numbers = ", ".join(str(row) for row in rows[:show])
    yield f"{kind:10} {check.title}: {len(rows):,} (row{'s' * (len(rows) > 1)} {numbers}{more})"
    row, detail = min(report.findings.details[name])
    if detail:
        yield f"           row {row}: {detail}"
    yield f"           -> {check.fix}"


def _format(source: str) -> str:
    path = Path(source)
    return path.suffix.removeprefix(".") if path.exists() else "generated" if ":" in source else "hub"


def _missing(report: DataReport) -> dict[str, str]:
    return {role: why for role, why in NEEDED.items() if role not in report.has}


def _lengths(report: DataReport) -> list[tuple[str, array[int], int]]:
    return [
        ("prompt", report.prompt_tokens, report.limits[0]),
        ("response", report.response_tokens, report.limits[1]),
    ]


def _shares(counts: Counter[str], most: int = 6) -> str:
    total = max(1, counts.total())
    shown = [f"{name or '(none)'} {count / total:.1%}" for name, count in counts.most_common(most)]
    return ", ".join(shown) + (f", {len(counts) - most} more" if len(counts) > most else "")
