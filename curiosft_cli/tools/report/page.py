"""Put the page together: one file, nothing from elsewhere, and a policy that forbids everything else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.stages.rephrase.review import embedded
from curiosft_cli.tools.report.curves import Chart

MARK = re.compile(r"\{\{([A-Z_]+)\}\}")


def plotly() -> str:
    """The charting library, a program of 4.8 MB.

    Raises:
        CurioError: exit code 3 where it is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise CurioError("a report needs plotly", "Install the extra: pip install 'curiosft[report]'.", MISSING) from None
    return get_plotlyjs()


def page(title: str, parts: Mapping[str, str], data: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        title: of the page; text.
        parts: HTML for the marks of page.html, by name.
        data: what the page's program reads.
    """
    from curiosft_cli.tools.report.html import text

    programs = [plotly(), _file("page.js")]
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_digest, programs))}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    filled = {
        "POLICY": policy,
        "TITLE": text(title),
        "STYLE": _file("page.css"),
        "DATA": embedded(data),
        "PROGRAMS": "\n".join(f"<script>{program}</script>" for program in programs),
        **parts,
    }
    return MARK.sub(lambda found: filled[found[1]], _file("page.html"))


def chart_data(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """The charts for the page's program."""
    return [{"traces": chart.traces, "layout": chart.layout} for chart in charts]


def chart_places(charts: Sequence[Chart], section: str) -> str:
    """Where the charts of a section are drawn."""
    from curiosft_cli.tools.report.html import text

    figures = [
        f'<figure><figcaption>{text(chart.title)}</figcaption><div class="chart" data-chart="{number}"></div></figure>'
        for number, chart in enumerate(charts)
        if chart.section == section
    ]
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _file(name: str) -> str:
    return (resources.files("curiosft_cli.tools.report") / name).read_text("utf-8")


def _digest(program: str) -> str:
    """The policy's word for exactly this program."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()}'"


def compressed(value: Any) -> str:
    """JSON, gzip, base64: what the page unpacks when it is asked for."""
    import gzip

    return base64.b64encode(gzip.compress(json.dumps(value, ensure_ascii=False).encode(), 9, mtime=0)).decode()
