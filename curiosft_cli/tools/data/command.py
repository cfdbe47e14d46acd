"""The command `curiosft data check`: check the data, write a repaired copy if wanted, print the report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.log import Console
from curiosft_cli.run.text import show
from curiosft_cli.tools.data.check import check_rows, compare_with_benchmarks
from curiosft_cli.tools.data.repair import repaired_path, write_repaired
from curiosft_cli.tools.data.report import DataReport, of_benchmarks, of_rows
from curiosft_cli.tools.data.report import as_json as json_of

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Config


def run(
    source: str, config: Config, *, as_json: bool, fix: bool, drop_contaminated: bool, out: Path | None = None
) -> int:
    """Check a source and return the exit code.

    Raises:
        CurioError: the source cannot be read, the copy cannot be written, or contaminated rows are to be dropped and
            a benchmark is out of reach.
    """
    target = out or repaired_path(source)
    if (fix or drop_contaminated) and target.exists():
        raise CurioError(f"{target} exists already", "Remove it, or name another file with --out.")
    if drop_contaminated and config.check.depth == "quick":
        raise CurioError("--drop-contaminated needs check.depth=full, found quick", "Leave one of them out.")
    console = Console()
    report = check_rows(source, config, console)
    if not as_json:
        show(of_rows(report, config.check.show), sys.stdout)  # at once: the hub may take its time
    if config.check.depth == "full":
        compare_with_benchmarks(report, config, console, all_benchmarks=drop_contaminated)
    drop = report.to_drop(broken=fix, contaminated=drop_contaminated)
    clean = report.findings.to_repair("clean") if fix else set()
    if drop or clean:
        write_repaired(source, target, drop=drop, clean=clean - drop)
    written = {"path": str(target), "dropped": len(drop), "cleaned": len(clean - drop)} if drop or clean else None
    if as_json:
        show(json.dumps({**json_of(report), "copy": written}, ensure_ascii=False))
    else:
        show(of_benchmarks(report, config.check.show))
        if fix or drop_contaminated:
            show(_copy_line(report, target, len(drop), len(clean - drop)))
    solved = drop | clean | (set(report.findings.rows.get("repeated", ())) if fix else set())
    return report.exit_code(frozenset(solved))


def _copy_line(report: DataReport, target: Path, dropped: int, cleaned: int) -> str:
    if not dropped and not cleaned:
        return "nothing to repair: no copy was written"
    return f"wrote {target}: {report.rows - dropped:,} rows, {dropped:,} left out, {cleaned:,} cleaned"
