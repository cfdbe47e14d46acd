"""Format a table as plain text, Markdown, LaTeX (booktabs) or CSV. What stands in a cell is text, whatever it holds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from curiosft_cli.run.text import one_line

Table = Sequence[Sequence[str]]

_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "%_&#${}"}
    | {"±": r"$\pm$", "−": "$-$", "~": r"\~{}", "^": r"\^{}", "\\": r"\textbackslash{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)
_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*|$~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_FORMULA = tuple("=+-@＝＋－＠")  # also the wide forms, which some spreadsheets read alike


def as_text(rows: Table, left: int = 1, width: int = 80) -> str:
    """Aligned columns: the first `left` to the left, the others to the right. Row 0 is the header.

    A table of more than `width` characters is cut between two columns; each part has the first `left` columns again.
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    named = range(min(left, len(widths)))
    parts = [[*named]]
    for column in range(len(named), len(widths)):
        if len(parts[-1]) > len(named) and sum(widths[one] + 2 for one in (*parts[-1], column)) - 2 > width:
            parts.append([*named])
        parts[-1].append(column)
    return "\n\n".join("\n".join(_aligned(row, part, widths, left) for row in cells) for part in parts)


def best_marked(cells: Sequence[str], values: Sequence[float | None], groups: Sequence[str]) -> list[str]:
    """The cells of one column; a star stands behind the highest value of each group that has different ones."""
    known: dict[str, set[float]] = {group: set() for group in groups}
    for value, group in zip(values, groups, strict=True):
        if value is not None:
            known[group].add(value)
    if all(len(found) < 2 for found in known.values()):
        return list(cells)
    return [
        f"{cell}{'*' if len(known[group]) > 1 and value == max(known[group]) else ' '}"
        for cell, value, group in zip(cells, values, groups, strict=True)
    ]


def as_markdown(rows: Table, left: int = 1) -> str:
    """A pipe table."""
    rule = ["---" if column < left else "---:" for column in range(len(rows[0]))]
    escaped = [[markdown(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [escaped[0], rule, *escaped[1:]])


def as_latex(rows: Table, left: int = 1) -> str:
    """A tabular for the booktabs package."""
    lines = [" & ".join(one_line(cell).translate(_LATEX) for cell in row) + r" \\" for row in rows]
    # A star or bracket behind the end of the last row would belong to it.
    lines = [f"{{}}{line}" if line.startswith(("[", "*")) else line for line in lines]
    columns = "l" * left + "r" * (len(rows[0]) - left)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([*body, r"\end{tabular}"])


def as_csv(rows: Table, left: int = 1) -> str:
    """Comma-separated values, quoted where needed. Text that a spreadsheet would calculate gets a `'` before it."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_csv(cell) for cell in row] for row in rows)
    return out.getvalue().rstrip("\n")


def markdown(text: str) -> str:
    """Text for a line of Markdown: no mark-up, no link, no HTML."""
    escaped = one_line(text).translate(_MARKDOWN).replace("](", r"]\(")
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", escaped)


def _aligned(row: Sequence[str], columns: Sequence[int], widths: Sequence[int], left: int) -> str:
    cells = (row[at].ljust(widths[at]) if at < left else row[at].rjust(widths[at]) for at in columns)
    return "  ".join(cells).rstrip()


def _markdown_paragraph(text: str) -> str:
    return re.sub(r"^(?=[#+=-])", r"\\", markdown(text))


def _csv(cell: str) -> str:
    text = one_line(cell)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


class Style(NamedTuple):
    """How to write a table, and a line of text below it."""

    table: Callable[[Table, int], str]
    line: Callable[[str], str]


STYLES: Mapping[str, Style] = {
    "text": Style(as_text, one_line),
    "markdown": Style(as_markdown, _markdown_paragraph),
    "latex": Style(as_latex, lambda text: f"% {one_line(text)}"),
    "csv": Style(as_csv, one_line),
}
