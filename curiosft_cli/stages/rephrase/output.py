"""Cleaned questions in the layout of the data they came from: tables out of tables, JSON lines out of the rest.

Tables are parquet files and data sets of the hub, and come out as parquet. There the other columns are the very Arrow
data of the input, never converted. Files appear whole or not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.data.files import FileRow
from curiosft_cli.data.hub import hub_table, is_hub_id
from curiosft_cli.data.sources import MESSAGE_COLUMNS, QUESTION_COLUMNS, with_question
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import PARTIAL_SUFFIX, JsonLines, disk_errors

if TYPE_CHECKING:
    import pyarrow

ADDED = ("original_question", "rephrase")


@dataclass(frozen=True)
class Cleaned:
    """One row of the result.

    Attributes:
        source: which source it came from, from 0.
        number: its row number there, from 1.
        id: its problem's id.
        row: as it was found.
        question: the cleaned question.
        original: the question as it was.
        record: how it came about.
    """

    source: int
    number: int
    id: str
    row: FileRow
    question: str
    original: str
    record: FileRow


def refuse_cleaned(row: FileRow, source: str) -> None:
    """Refuse rows that went through this before: their originals would be overwritten.

    Raises:
        CurioError: the row has a `rephrase` record.
    """
    if all(row.get(column) is not None for column in ADDED):
        raise CurioError(
            f"{source} holds questions that were cleaned already (columns {' and '.join(ADDED)})",
            "Give the data that they were made from.",
        )


def write_cleaned(folder: Path, sources: Sequence[str], cleaned: Iterable[Cleaned]) -> Path:
    """Write `questions.parquet` if all sources are tables of one schema, else `questions.jsonl`.

    Raises:
        CurioError: a value cannot be written as JSON; the disk is full (exit code 4).
    """
    schema = common_schema(sources)
    if schema is None:
        target, other = folder / "questions.jsonl", folder / "questions.parquet"
        with in_one_step(target) as file:
            for one in cleaned:
                file.append(_as_json(one, sources[one.source]))
    else:
        target, other = folder / "questions.parquet", folder / "questions.jsonl"
        with disk_errors(target):
            _write_parquet(target, sources, schema, iter(cleaned))
    other.unlink(missing_ok=True)
    return target


def common_schema(sources: Sequence[str]) -> pyarrow.Schema | None:
    """The one Arrow schema of these tables; None when one is no table or differs."""
    if not all(is_hub_id(source) or _is_parquet(source) for source in sources):
        return None
    from pyarrow import parquet

    schemas = [hub_table(at).data.schema if is_hub_id(at) else parquet.read_schema(at) for at in sources]
    return schemas[0] if all(schema.equals(schemas[0]) for schema in schemas) else None


def arrow_batches(source: str, batch_rows: int) -> Iterator[pyarrow.RecordBatch]:
    """Stream a table as it is."""
    if is_hub_id(source):
        yield from hub_table(source).data.to_batches(max_chunksize=batch_rows)
        return
    from pyarrow import parquet

    with parquet.ParquetFile(source, pre_buffer=False) as file:
        yield from file.iter_batches(batch_size=batch_rows)


def _is_parquet(source: str) -> bool:
    return source.endswith(".parquet") and Path(source).is_file()


@contextmanager
def in_one_step(path: Path) -> Generator[JsonLines]:
    """A JSONL file that appears whole, when the context ends well."""
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    partial.unlink(missing_ok=True)
    try:
        with JsonLines(partial) as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _as_json(one: Cleaned, source: str) -> FileRow:
    row = {"id": one.id, **with_question(one.row, one.question)}
    odd = [name for name, value in row.items() if not _is_json(value)]
    if odd:
        raise CurioError(
            f"{source}, row {one.number}: column {odd[0]} holds a {type(row[odd[0]]).__name__}, which JSON cannot hold",
            "Clean this source in a run of its own, so that the result is parquet.",
        )
    return {**row, **dict(zip(ADDED, (one.original, one.record), strict=True))}


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, str | int | float | bool)


def _write_parquet(
    target: Path, sources: Sequence[str], schema: pyarrow.Schema, cleaned: Iterator[Cleaned], batch_rows: int = 1024
) -> None:
    from pyarrow import parquet

    partial = target.with_name(f".{target.name}{PARTIAL_SUFFIX}")
    try:
        with partial.open("wb") as file:
            with parquet.ParquetWriter(file, _extended(schema)) as writer:
                for batch in _batches(sources, schema, cleaned, batch_rows):
                    writer.write_batch(batch)
            file.flush()
            import os

            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _batches(
    sources: Sequence[str], schema: pyarrow.Schema, cleaned: Iterator[Cleaned], batch_rows: int
) -> Iterator[pyarrow.RecordBatch]:
    """The batches of all sources with their cleaned rows; `cleaned` comes in the order of the files."""
    waiting = next(cleaned, None)
    for index, source in enumerate(sources):
        start = 0
        for batch in arrow_batches(source, batch_rows):
            mine: list[Cleaned] = []
            while waiting and waiting.source == index and waiting.number <= start + batch.num_rows:
                mine.append(waiting)
                waiting = next(cleaned, None)
            if mine:
                yield _rewritten(batch, [one.number - 1 - start for one in mine], mine, schema)
            start += batch.num_rows


def _rewritten(
    batch: pyarrow.RecordBatch, places: list[int], cleaned: list[Cleaned], schema: pyarrow.Schema
) -> pyarrow.RecordBatch:
    """These rows of a batch with their new questions and what is added."""
    import pyarrow

    rows = batch.take(pyarrow.array(places, pyarrow.int64()))
    after = [with_question(one.row, one.question) for one in cleaned]
    columns = {name: rows.column(name) for name in rows.schema.names}
    for name in itertools.chain(QUESTION_COLUMNS, MESSAGE_COLUMNS):
        if any(row.get(name) is not one.row.get(name) for row, one in zip(after, cleaned, strict=True)):
            columns[name] = pyarrow.array([row[name] for row in after], schema.field(name).type)
    columns.setdefault("id", pyarrow.array([one.id for one in cleaned], pyarrow.string()))
    columns["original_question"] = pyarrow.array([one.original for one in cleaned], pyarrow.string())
    columns["rephrase"] = pyarrow.array([one.record for one in cleaned], _record_type())
    extended = _extended(schema)
    return pyarrow.RecordBatch.from_arrays([columns[name] for name in extended.names], schema=extended)


def _extended(schema: pyarrow.Schema) -> pyarrow.Schema:
    """The schema of the result. A description of the columns for `datasets` is left out: it would be wrong now."""
    import pyarrow

    if "id" not in schema.names:
        schema = schema.append(pyarrow.field("id", pyarrow.string()))
    for name, kind in zip(ADDED, (pyarrow.string(), _record_type()), strict=True):
        place = schema.get_field_index(name)
        schema = schema.append(pyarrow.field(name, kind)) if place < 0 else schema.set(place, pyarrow.field(name, kind))
    kept = {key: value for key, value in (schema.metadata or {}).items() if key != b"huggingface"}
    return schema.with_metadata(kept or None)


def _record_type() -> pyarrow.DataType:
    import pyarrow

    texts = [(name, pyarrow.string()) for name in ("model", "prompt_hash", "time", "verdict", "reason", "decided_by")]
    return pyarrow.struct(
        [
            *texts,
            ("tokens", pyarrow.int64()),
            *[(name, pyarrow.list_(pyarrow.string())) for name in ("differences", "flags")],
        ]
    )
