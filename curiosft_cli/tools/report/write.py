"""`curiosft report RUN [RUN ...]`: read the runs, make the parts of the page, write the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curiosft_cli.run.files import write_text
from curiosft_cli.tools.report.curves import curves
from curiosft_cli.tools.report.headline import headline, verdicts
from curiosft_cli.tools.report.html import notes, text
from curiosft_cli.tools.report.made import how_made
from curiosft_cli.tools.report.page import chart_data, chart_places, page
from curiosft_cli.tools.report.read import RunRecord, read_runs
from curiosft_cli.tools.report.scores import score_charts


def write_report(names: Sequence[str], out: Path | None = None) -> tuple[Path, list[str]]:
    """Write the page; return its path and what was left out.

    Args:
        names: run folders, or names of runs in `runs/`.
        out: the file. None: `report.html` in the folder of the first run.

    Raises:
        CurioError: a run does not exist or has nothing to show, or plotly is not installed.
    """
    runs = read_runs(names)
    charts = curves(runs) + score_charts(runs)
    left_out = [f"{run.label}: {line}" for run in runs for line in run.left_out]
    sections = {
        "Results": headline(runs) + verdicts(runs),
        "Pass@k": chart_places(charts, "pass"),
        "Diversity": chart_places(charts, "diversity"),
        "Accuracy and entropy": chart_places(charts, "story"),
        "SFT": chart_places(charts, "sft"),
        "RL": chart_places(charts, "rl"),
        "How it was made": how_made(runs),
        "Left out": notes(left_out),
    }
    present = {title: html for title, html in sections.items() if html}
    links = "".join(f'<a href="#{_anchor(title)}">{text(title)}</a>' for title in present)
    body = "\n".join(
        f'<section id="{_anchor(title)}"><h2>{text(title)}</h2>{html}</section>' for title, html in present.items()
    )
    parts = {"NAVIGATION": f"<nav>{links}</nav>", "BODY": body}
    target = out or runs[0].folder.path / "report.html"
    write_text(target, page(_title(runs), parts, {"charts": chart_data(charts)}))
    return target, left_out


def _title(runs: Sequence[RunRecord]) -> str:
    return f"curiosft report: {', '.join(run.label for run in runs)}"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
