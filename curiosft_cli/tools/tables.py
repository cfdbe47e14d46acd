"""Format a table as plain text, Markdown, LaTeX (booktabs) or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

Table = Sequence[Sequence[str]]

_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "%_&#${}"}
    | {"±": r"$\pm$", "−": "$-$", "~": r"\~{}", "^": r"\^{}", "\\": r"\textbackslash{}"}
)


def as_text(rows: Table, left: int = 1) -> str:
    """Aligned columns: the first `left` to the left, the others to the right. Row 0 is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_markdown(rows: Table, left: int = 1) -> str:
    """A pipe table."""
    rule = ["---" if column < left else "---:" for column in range(len(rows[0]))]
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [escaped[0], rule, *escaped[1:]])


def as_latex(rows: Table, left: int = 1) -> str:
    """A tabular for the booktabs package."""
    lines = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in rows]
    columns = "l" * left + "r" * (len(rows[0]) - left)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([*body, r"\end{tabular}"])


def as_csv(rows: Table, left: int = 1) -> str:
    """Comma-separated values, quoted where needed."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().rstrip("\n")


STYLES: Mapping[str, Callable[[Table, int], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
}
