"""Files that are complete or invisible: temporary name, fsync, rename; a marker last for folders."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from curiosft_cli.run.errors import GUARD, CurioError

COMPLETE = "COMPLETE"
PARTIAL_SUFFIX = ".partial"


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def partial_path(path: Path) -> Path:
    """Where `folder_in_one_step` builds `path`."""
    return path.with_name(f".{path.name}{PARTIAL_SUFFIX}")


@contextmanager
def folder_in_one_step(path: Path) -> Generator[Path]:
    """Yield a temporary folder; on success it becomes `path`, with the `COMPLETE` marker inside, in one rename.

    A process killed half-way leaves a `.partial` folder, which the next writer removes.
    """
    partial = partial_path(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _sync_file(file)
        (partial / COMPLETE).touch()
        _sync_file(partial / COMPLETE)
        _sync_folder(partial)
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def is_complete(folder: Path) -> bool:
    """Whether the folder carries its `COMPLETE` marker."""
    return (folder / COMPLETE).is_file()


class JsonLines:
    """An append-only JSONL file, flushed line by line. Opening it drops a torn last line.

    Raises:
        CurioError: exit code 4 when the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_torn_line(path)
        self._file: TextIO = path.open("a", encoding="utf-8")

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row and hand it to the operating system at once."""
        try:
            self._file.write(json_line(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Flush to disk and close."""
        if not self._file.closed:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
            except OSError as error:
                raise self._failed(error) from error

    def _failed(self, error: OSError) -> CurioError:
        return CurioError(
            f"cannot write {self.path}: {error.strerror}", "Free some space, then run the same command again.", GUARD
        )

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def json_line(row: Mapping[str, Any]) -> str:
    """One row as JSON on one line; readable letters, unless half a surrogate pair must be escaped."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row)
    return line


def drop_torn_line(path: Path, block: int = 1 << 20) -> None:
    """Cut the file after its last line break: what follows was being written when a process died."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - block)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end != size:
            file.truncate(end)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL or `.jsonl.zst` file; nothing when it does not exist. A torn last line is skipped."""
    if not path.exists():
        return
    with _open_text(path) as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def write_compressed_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], level: int = 10) -> None:
    """Write one `.jsonl.zst` file, complete or not at all."""
    import zstandard

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    with partial.open("wb") as sink:
        with zstandard.ZstdCompressor(level=level).stream_writer(sink, closefd=False) as packed:
            for row in rows:
                packed.write((json_line(row) + "\n").encode())
        sink.flush()
        os.fsync(sink.fileno())
    partial.replace(path)


def compress_jsonl(path: Path, level: int = 10) -> Path:
    """Turn `x.jsonl` into `x.jsonl.zst` and return the new path."""
    import zstandard

    target = path.with_name(path.name + ".zst")
    partial = target.with_name(f".{target.name}{PARTIAL_SUFFIX}")
    with path.open("rb") as source, partial.open("wb") as sink:
        zstandard.ZstdCompressor(level=level).copy_stream(source, sink)
        sink.flush()
        os.fsync(sink.fileno())
    partial.replace(target)
    path.unlink()
    return target


def _open_text(path: Path) -> TextIO:
    if path.suffix != ".zst":
        return path.open(encoding="utf-8")
    import io

    import zstandard

    return io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True), encoding="utf-8")


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
