"""Saved responses: the rows that `curiosft grade` reads, and the rows that it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curiosft_cli.data.files import BadRow, FileRow, read_rows
from curiosft_cli.data.records import AnswerKind, Grade, Grader, Problem
from curiosft_cli.grading.choices import LETTERS
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.run.errors import CurioError

KINDS: tuple[AnswerKind, ...] = ("math", "choice")
LAYOUT = (
    "A row is {id, response, gold, kind: math|choice, choices?, n_choices?, prefilled? (default true), truncated?}."
)


def read_responses(path: Path, grader: Grader) -> Iterator[tuple[FileRow, GradeItem]]:
    """Stream `(unchanged row, item to grade)`.

    Raises:
        CurioError: the file cannot be read, or a row is not a saved response.
    """
    for number, row in read_rows(path):
        try:
            if isinstance(row, BadRow):
                raise row
            yield row, to_item(row, grader)
        except BadRow as error:
            raise CurioError(f"{path}, row {number}: {error}", LAYOUT) from None


def to_item(row: Mapping[str, Any], grader: Grader) -> GradeItem:
    """Read one row.

    Raises:
        BadRow: a column is missing or has the wrong type.
    """
    choices = _choices(row)
    kind = row.get("kind", "choice" if choices else "math")
    if kind not in KINDS:
        raise BadRow(f"column kind: found {kind!r}, expected math or choice")
    if kind == "math" and choices:
        raise BadRow("column kind: found math beside choices, expected choice")
    problem = Problem(
        id=str(_required(row, "id", (str, int))),
        question="",
        answer=str(_required(row, "gold", (str, int, float))),
        kind=kind,
        choices=choices,
    )
    return GradeItem(
        _required(row, "response", (str,)),
        problem,
        prefilled=_flag(row, "prefilled", default=True),
        truncated=_flag(row, "truncated", default=False),
        grader=grader,
    )


def graded_row(row: Mapping[str, Any], grade: Grade) -> FileRow:
    """The row with the fields of the grade, which replace those of an earlier grade."""
    return {**row, **asdict(grade)}


def _choices(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of the choices. If only their number is known, as many empty texts: no answer equals them."""
    texts, count = row.get("choices"), row.get("n_choices")
    if texts is not None and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise BadRow(f"column choices: found {_shown(texts)}, expected a list of texts")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 0 < count <= len(LETTERS)):
        raise BadRow(f"column n_choices: found {_shown(count)}, expected a number from 1 to {len(LETTERS)}")
    if texts and len(texts) > len(LETTERS):
        raise BadRow(f"column choices: found {len(texts)} texts, expected at most {len(LETTERS)}")
    if texts and count is not None and count != len(texts):
        raise BadRow(f"column n_choices: found {count} beside {len(texts)} choices, expected the same number")
    return tuple(texts) if texts else ("",) * (count or 0)


def _required(row: Mapping[str, Any], column: str, types: tuple[type, ...]) -> Any:
    if column not in row:
        raise BadRow(f"column {column}: missing, found {', '.join(map(str, row)) or 'no columns'}")
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, types):
        expected = "text" if types == (str,) else "text or a number"
        raise BadRow(f"column {column}: found {_shown(value)}, expected {expected}")
    return value


def _flag(row: Mapping[str, Any], column: str, *, default: bool) -> bool:
    value = row.get(column)
    if value is not None and not isinstance(value, bool):
        raise BadRow(f"column {column}: found {_shown(value)}, expected true or false")
    return default if value is None else value


def _shown(value: object, longest: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."
