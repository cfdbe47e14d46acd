"""`curiosft report RUN [RUN ...]`: read the runs, make the parts of the page, write the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from curiosft_cli.run.files import write_text
from curiosft_cli.run.text import one_line
from curiosft_cli.tools.report.curves import Chart, curves
from curiosft_cli.tools.report.figures import write_figures
from curiosft_cli.tools.report.headline import headline, verdicts
from curiosft_cli.tools.report.made import how_made
from curiosft_cli.tools.report.markup import notes
from curiosft_cli.tools.report.page import chart_data, chart_places, page, reading
from curiosft_cli.tools.report.read import RunRecord, read_runs
from curiosft_cli.tools.report.samples import samples
from curiosft_cli.tools.report.scores import score_charts
from curiosft_cli.tools.report.token_rows import token_rows


def write_report(
    names: Sequence[str], out: Path | None = None, figures: Path | None = None, tokens: int | None = None
) -> list[str]:
    """Write the page; return lines for the terminal: what was left out, and the files.

    Args:
        names: run folders, or names of runs in `runs/`.
        out: the file. None: `report.html` in the folder of the first run.
        figures: folder for the paper's figures as PDF and PNG; None writes none.
        tokens: show only the curiosity map of this held-out row, whole.

    Raises:
        CurioError: a run does not exist or has nothing to show, no run kept the row `tokens`, or an extra is missing.
    """
    runs = read_runs(names)
    charts = [] if tokens is not None else score_charts(runs) + curves(runs)
    curiosity = {"Curiosity map": reading("map", *token_rows(runs, tokens))}
    sections = curiosity if tokens is not None else _sections(runs, charts, curiosity)
    left_out = [line for run in runs for line in _left_out(run)]
    sections["Left out"] = notes(left_out)
    target = out or runs[0].folder.path / ("report.html" if tokens is None else f"tokens-{tokens}.html")
    title = f"curiosft report: {', '.join(run.label for run in runs)}"
    write_text(target, page(title, sections, {"charts": chart_data(charts)}))
    drawn = [] if figures is None else write_figures(runs, figures)
    return [*(one_line(f"left out: {line}") for line in left_out), str(target), *drawn]


def _left_out(run: RunRecord, most: int = 20) -> list[str]:
    """What could not be read of a run; of many lines the first ones, and how many more there are."""
    more = len(run.left_out) - most
    return [f"{run.label}: {line}" for line in (*run.left_out[:most], *([f"and {more:,} more"] if more > 0 else []))]


def _sections(runs: Sequence[RunRecord], charts: Sequence[Chart], curiosity: Mapping[str, str]) -> dict[str, str]:
    return {
        "Results": headline(runs) + verdicts(runs),
        "Pass@k and diversity": chart_places(charts, "scores"),
        "Accuracy and entropy": chart_places(charts, "story"),
        **curiosity,
        "SFT": chart_places(charts, "sft"),
        "RL": chart_places(charts, "rl"),
        "Samples": reading("samples", *samples(runs)),
        "How it was made": how_made(runs),
    }
