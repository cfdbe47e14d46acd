"""Put the page together: one file, nothing from elsewhere, and a policy that forbids everything else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.stages.rephrase.review import embedded
from curiosft_cli.tools.report.curves import Chart
from curiosft_cli.tools.report.markup import notes, text

MARK = re.compile(r"\{\{([A-Z_]+)\}\}")


def plotly() -> str:
    """The charting library, a program of 4.8 MB.

    Raises:
        CurioError: exit code 3 where it is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise CurioError(
            "a report needs plotly", "Install the extra: pip install 'curiosft[report]'.", MISSING
        ) from None
    return get_plotlyjs()


def page(title: str, sections: Mapping[str, str], data: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        title: of the page; text.
        sections: title (text) to HTML; an empty one is left out.
        data: what the page's program reads.
    """
    programs = [plotly(), *(_file(f"{name}.js") for name in ("common", "charts", "samples", "map"))]
    policy = [
        *("default-src 'none'", "base-uri 'none'", "form-action 'none'", "img-src data:", "style-src 'unsafe-inline'"),
        f"script-src {' '.join(map(_digest, programs))}",
    ]
    present = {name: html for name, html in sections.items() if html}
    links = "".join(f'<a href="#{_anchor(name)}">{text(name)}</a>' for name in present)
    filled = {
        "POLICY": "; ".join(policy),
        "TITLE": text(title),
        "STYLE": _file("page.css"),
        "NAVIGATION": f"<nav>{links}</nav>",
        "BODY": "\n".join(
            f'<section id="{_anchor(name)}"><h2>{text(name)}</h2>{html}</section>' for name, html in present.items()
        ),
        "DATA": embedded(data),
        "PROGRAMS": "\n".join(f"<script>{program}</script>" for program in programs),
    }
    return MARK.sub(lambda found: filled[found[1]], _file("page.html"))


def reading(part: str, data: str, remarks: Sequence[str]) -> str:
    """The HTML of a part ("samples" or "map") around its packed data; "" without data."""
    return _file(f"{part}.html").replace("{{PACKED}}", data) + notes(remarks) if data else ""


def chart_data(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """The charts for the page's program."""
    return [{"traces": chart.traces, "layout": chart.layout} for chart in charts]


def chart_places(charts: Sequence[Chart], section: str) -> str:
    """Where the charts of a section are drawn."""
    figures = [
        f'<figure><figcaption>{text(chart.title)}</figcaption><div class="chart" data-chart="{number}"></div></figure>'
        for number, chart in enumerate(charts)
        if chart.section == section
    ]
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _file(name: str) -> str:
    return (resources.files("curiosft_cli.tools.report") / "parts" / name).read_text("utf-8")


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())


def _digest(program: str) -> str:
    """The policy's word for exactly this program."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()}'"
