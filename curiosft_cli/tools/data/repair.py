"""Write a repaired copy of a data file: rows are left out or cleaned. The input stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

from curiosft_cli.data.files import UTF8_MARK, BadRow
from curiosft_cli.data.sources import numbered_rows
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import file_in_one_step
from curiosft_cli.tools.data.row_checks import cleaned

Rows = Collection[int]


def repaired_path(source: str) -> Path:
    """`train.fixed.parquet` for `train.parquet`; JSONL for CSV; for what is not a file, JSONL in the current folder."""
    path = Path(source)
    if path.exists():
        return path.with_name(f"{path.stem}.fixed{path.suffix if path.suffix in COPIES else '.jsonl'}")
    return Path(source.replace("/", "--").replace(":", "-") + ".fixed.jsonl")


def write_repaired(source: str, target: Path, *, drop: Rows, clean: Rows) -> None:
    """Write `target` in the format of the source, without the rows of `drop` and with those of `clean` cleaned.

    A copy of CSV, of a hub's data set or of a generator is JSONL.

    Args:
        source: a data file, a hub id or a generator. Rows of JSONL that are kept stay the same byte for byte.
        target: the copy; must not exist.
        drop: row numbers from 1, as `numbered_rows` counts them.
        clean: row numbers whose texts lose their control characters.

    Raises:
        CurioError: the target exists, is called CSV, the disk is full, or the folder cannot be written.
    """
    if target.suffix == ".csv":
        raise CurioError(f"{target} would be JSONL, and ends in .csv", "Give --out a name that ends in .jsonl.")
    copy = COPIES.get(Path(source).suffix) if Path(source).exists() else None
    with file_in_one_step(target) as partial:
        if copy:
            copy(Path(source), partial, drop, clean)
        else:
            _from_rows(source, partial, drop, clean)


def _copy_jsonl(source: Path, target: Path, drop: Rows, clean: Rows) -> None:
    with source.open("rb") as lines, target.open("wb") as out:
        for number, line in enumerate(lines, start=1):
            if number in drop:
                continue
            line = line.removeprefix(UTF8_MARK) if number == 1 else line
            if number in clean:
                line = json.dumps(cleaned(json.loads(line)), ensure_ascii=False).encode()
            out.write(line if line.endswith(b"\n") else line + b"\n")


def _copy_json(source: Path, target: Path, drop: Rows, clean: Rows) -> None:
    rows = json.loads(source.read_bytes().removeprefix(UTF8_MARK).decode("utf-8"))
    kept = [cleaned(row) if at in clean else row for at, row in enumerate(rows, start=1) if at not in drop]
    target.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _copy_parquet(source: Path, target: Path, drop: Rows, clean: Rows, batch_rows: int = 256) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    done = 0
    with (
        parquet.ParquetFile(source, pre_buffer=False) as file,
        parquet.ParquetWriter(target, file.schema_arrow) as out,
    ):
        for batch in file.iter_batches(batch_size=batch_rows):
            numbers = range(done + 1, done + batch.num_rows + 1)
            done += batch.num_rows
            if any(number in clean for number in numbers):
                rows = [
                    cleaned(row) if at in clean else row for at, row in zip(numbers, batch.to_pylist(), strict=True)
                ]
                batch = pa.RecordBatch.from_pylist(rows, schema=file.schema_arrow)
            out.write_batch(batch.filter(pa.array([number not in drop for number in numbers])))


def _from_rows(source: str, target: Path, drop: Rows, clean: Rows) -> None:
    with target.open("w", encoding="utf-8") as out:
        for number, row in numbered_rows(source):
            if number not in drop and not isinstance(row, BadRow):
                out.write(json.dumps(cleaned(row) if number in clean else row, ensure_ascii=False, default=str) + "\n")


COPIES: dict[str, Callable[[Path, Path, Rows, Rows], None]] = {
    ".jsonl": _copy_jsonl,
    ".json": _copy_json,
    ".parquet": _copy_parquet,
}
