"""Read rows from JSONL, JSON, CSV and parquet files. Every fault of a file becomes one clear line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import check_regular

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
UTF8_MARK = b"\xef\xbb\xbf"


class BadRow(ValueError):
    """A row that is not a problem; the message names the column, what was found and what is expected."""


FileRow = dict[str, Any]


def read_rows(path: Path) -> Iterator[tuple[int, FileRow | BadRow]]:
    """Yield `(row number from 1, row)`, with a `BadRow` for a row that cannot be read. All but JSON stream.

    Raises:
        CurioError: the file does not have the format that its name says, or it holds no row.
    """
    if path.suffix not in READERS or path.is_dir():
        what = "a folder" if path.is_dir() else f"a '{path.suffix}' file"
        raise CurioError(f"{path} is {what}, expected a data file", f"Give a file that ends in {', '.join(READERS)}.")
    check_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(2)
    except OSError as error:
        raise CurioError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions.") from None
    if head in UTF16_MARKS:
        raise CurioError(f"{path} is UTF-16 text, expected UTF-8", "Convert the file to UTF-8.")
    number = 0
    for number, row in READERS[path.suffix](path):
        if isinstance(row, dict | BadRow):
            yield number, row
        else:
            yield number, BadRow(f"found {type(row).__name__}, expected an object")
    if not number:
        raise CurioError(f"{path} is empty", "Give a file with at least one row.")


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _parsed(line.removeprefix(UTF8_MARK) if number == 1 else line)


def _parsed(line: bytes) -> Any:
    if b"\x00" in line:
        return BadRow("found NUL bytes, expected a JSON object")
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRow(f"found byte 0x{line[error.start]:02x} at {error.start}, expected UTF-8 text")
    except RecursionError:
        return BadRow("found brackets nested too deeply, expected a JSON object")
    except ValueError as error:
        return BadRow(f"found {line[:40].decode('utf-8', 'replace').strip()!r}, expected JSON ({error})")


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        rows = json.loads(path.read_bytes().removeprefix(UTF8_MARK).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CurioError(f"{path} is not UTF-8 text (at byte {error.start})", "Convert the file to UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise CurioError(
            f"{path} is not JSON: {error}", "Correct the file. If it has one object per line, name it .jsonl."
        ) from None
    if not isinstance(rows, list):
        raise CurioError(f"{path} holds one {type(rows).__name__}, expected a list of objects", "Put it in a list.")
    yield from enumerate(rows, start=1)


def _csv(path: Path, longest_cell: int = 2**27) -> Iterator[tuple[int, Any]]:
    """Every value is text, and an empty cell is None. The first line names the columns.

    The separator is a comma; or a semicolon or tab, where the first line has these and no comma.
    """
    csv.field_size_limit(longest_cell)
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            separator = next((sign for sign in ",;\t" if sign in head), ",")
            lines = csv.reader(file, delimiter=separator, strict=True)
            columns = next(lines, [])
            if twice := sorted({name for name in columns if columns.count(name) > 1 or not name.strip()}):
                raise CurioError(f"{path} has two columns '{twice[0]}', or one without a name", "Rename one of them.")
            for number, cells in enumerate(filter(None, lines), start=1):
                if len(cells) == len(columns):
                    yield number, {name: cell or None for name, cell in zip(columns, cells, strict=True)}
                else:
                    yield number, BadRow(f"found {len(cells)} cells, expected {len(columns)}")
    except UnicodeDecodeError as error:
        raise CurioError(f"{path} is not UTF-8 text ({error.reason})", "Save it as CSV in UTF-8.") from None
    except csv.Error as error:
        raise CurioError(
            f"{path} is not CSV (after row {number}): {error}", "Correct the quotes of that row."
        ) from None


def _parquet(path: Path, batch_rows: int = 256) -> Iterator[tuple[int, Any]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        # With pre_buffer, every column chunk that was read stays in memory: in the end, the whole file.
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=batch_rows):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise CurioError(
            f"{path} is not a whole parquet file (after row {number}): {str(error).splitlines()[0]}",
            "Copy or make it again.",
        ) from None


READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
