"""Pieces of the page. All text of models, files and users is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from curiosft_cli.run.text import plain

Row = Sequence[str]


def text(value: object) -> str:
    """Text for the page: no markup, and no sign that hides or reorders other text."""
    return escape(plain(str(value)))


def table(header: Row, rows: Sequence[Row], *, left: int = 1) -> str:
    """A table of text; the first `left` columns stand to the left, the others to the right."""

    def line(cells: Row, tag: str) -> str:
        kinds = ["l" if column < left else "r" for column in range(len(cells))]
        inner = (f'<{tag} class="{kind}">{text(cell)}</{tag}>' for kind, cell in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table><thead>{line(header, "th")}</thead><tbody>{body}</tbody></table></div>'


def notes(lines: Sequence[str]) -> str:
    """A list of remarks."""
    return f'<ul class="notes">{"".join(f"<li>{text(line)}</li>" for line in lines)}</ul>' if lines else ""
