"""Files that are complete or invisible: temporary name, fsync, rename; a marker last for folders."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import IO, Any, TextIO

from curiosft_cli.run.errors import CurioError, file_trouble
from curiosft_cli.run.text import shortened

COMPLETE = "COMPLETE"
PARTIAL_SUFFIX = ".partial"
PACKED_SUFFIX = ".zst"
JSON_NAMES: dict[type, str] = {
    str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "an object",
    NoneType: "null",
}  # fmt: skip
Types = Mapping[str, tuple[type, ...]]
NUMBER, OPTIONAL_NUMBER, TEXT = (int, float), (int, float, NoneType), (str,)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: a reader sees the old file or the new one."""
    with _replacing(path, _own_partial(path)) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, fix: str = "Restore it, or delete it.") -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        CurioError: the file cannot be read, or holds no JSON object.
    """
    check_regular(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CurioError(f"cannot read {path}: {error}", fix) from None
    if not isinstance(value, dict):
        raise CurioError(f"{path} holds a {type(value).__name__}, expected an object", fix)
    return value


def partial_path(path: Path) -> Path:
    """The temporary path where `path` is built."""
    return path.with_name(f".{path.name}{PARTIAL_SUFFIX}")


@contextmanager
def folder_in_one_step(path: Path, marker: Callable[[Path], str] = lambda _: "") -> Generator[Path]:
    """Yield a temporary folder; on success it becomes `path`, with the `COMPLETE` marker inside, in one rename.

    A process killed half-way leaves a `.partial` folder, which the next writer removes. The umask decides who may read
    the files, whatever the library that wrote them thinks.

    Args:
        path: the folder.
        marker: gets the folder with all files written, and gives the text of the marker.
    """
    partial = partial_path(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        files = [file for file in partial.rglob("*") if file.is_file()]
        for file in files:
            _sync_file(file)
        (partial / COMPLETE).write_text(marker(partial), encoding="utf-8")
        _sync_file(partial / COMPLETE)
        for file in files:
            file.chmod(stat.S_IMODE((partial / COMPLETE).stat().st_mode))
        _sync_folder(partial)
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def is_complete(folder: Path) -> bool:
    """Whether the folder has its `COMPLETE` marker."""
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
        """Write one row and flush it to the operating system."""
        with disk_errors(self.path):
            self._file.write(json_line(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Flush to disk and close."""
        if not self._file.closed:
            with disk_errors(self.path):
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def json_line(row: Mapping[str, Any]) -> str:
    """One row as JSON on one line; non-ASCII letters are escaped only if the row has half a surrogate pair."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row)
    return line


def drop_torn_line(path: Path, block: int = 1 << 20) -> None:
    """Cut the file after its last line break: a process died while it wrote the rest."""
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


def read_jsonl(
    path: Path, left_out: list[str] | None = None, *, types: Types = MappingProxyType({})
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL or `.jsonl.zst` file, none if it does not exist. A torn last line is skipped.

    Args:
        path: the file.
        left_out: collects a message for each line that cannot be read, and for the damaged rest of a `.zst` file.
            None: the first one is raised.
        types: see `check_types`.

    Raises:
        CurioError: a line is no JSON object, or has an entry of another type, and `left_out` is None.
    """
    if not path.exists():
        return
    try:
        with open_lines(path) as file:
            for number, line in enumerate(file, start=1):
                try:
                    if line.endswith(b"\n"):
                        check_types(row := _row(line, path, number), types, f"{path}, line {number}")
                        yield row
                    elif left_out is not None:
                        left_out.append(f"{path}, line {number} is incomplete")
                except CurioError as error:
                    collect(error, left_out)
    except CurioError as error:
        collect(error, left_out)


def check_types(
    row: Mapping[str, Any], types: Types, where: str, fix: str = "Restore the file, or delete it.", limit: int = 2**63
) -> None:
    """Check the entries of a JSON object; an absent one is None.

    Args:
        row: the object.
        types: the legal types of each entry. True and False are no numbers.
        where: the file and the line.
        fix: the next step.
        limit: numbers must be finite and smaller, whatever their sign.

    Raises:
        CurioError: an entry has another type, or a number is too large or not finite.
    """
    for key, legal in types.items():
        value = row.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if type(value) not in legal or (number and not -limit < value < limit):
            expected = " or ".join(dict.fromkeys(JSON_NAMES[kind] for kind in legal))
            raise CurioError(f"{where}: {key} is {shortened(value)}, expected {expected}", fix)


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CurioError(f"{path}, line {number} is no JSON: {error}", "Restore the file, or delete it.") from None
    if not isinstance(row, dict):
        raise CurioError(f"{path}, line {number} is no JSON object", "Restore the file, or delete it.")
    return row


def collect(error: CurioError, left_out: list[str] | None) -> None:
    """Add the error's message to `left_out`, or raise the error if that is None."""
    if left_out is None:
        raise error
    left_out.append(error.what)


def packed_path(path: Path) -> Path:
    """The path of the compressed `path`."""
    return path.with_name(path.name + PACKED_SUFFIX)


def present(path: Path) -> Path:
    """`x.jsonl`, or `x.jsonl.zst` if only that exists. If both exist, a process was killed while it compressed."""
    packed = packed_path(path)
    return packed if packed.exists() and not path.exists() else path


def write_compressed_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], level: int = 10) -> None:
    """Write one `.jsonl.zst` file in one step."""
    import zstandard

    with (
        _in_one_step(path) as sink,
        zstandard.ZstdCompressor(level=level, write_checksum=True).stream_writer(sink, closefd=False) as packed,
    ):
        for row in rows:
            packed.write((json_line(row) + "\n").encode())


def compress_jsonl(path: Path, level: int = 10) -> Path:
    """Turn `x.jsonl` into `x.jsonl.zst` and return the new path."""
    import zstandard

    target = packed_path(path)
    with path.open("rb") as source, _in_one_step(target) as sink:
        zstandard.ZstdCompressor(level=level, write_checksum=True).copy_stream(source, sink)
    path.unlink()
    return target


def unpack_jsonl(path: Path) -> None:
    """Turn `x.jsonl.zst` back into `path` (`x.jsonl`), so that it can grow; no effect if `path` exists."""
    if (packed := present(path)) != path:
        with open_lines(packed) as source, _in_one_step(path) as sink:
            shutil.copyfileobj(source, sink)
        packed.unlink()


def check_regular(path: Path) -> None:
    """Raise a `CurioError` for a folder, a pipe or a device; reading one may never end."""
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or a device"
        raise CurioError(f"{path} is {what}, expected a file", "Save its content as a file, and name that one.")


def check_all_regular(folder: Path) -> None:
    """Raise a `CurioError` for a pipe or a device anywhere in a folder."""
    for path in folder.rglob("*"):
        if not path.is_dir():
            check_regular(path)


def open_lines(path: Path) -> IO[bytes]:
    """Open a JSONL or `.jsonl.zst` file for reading its lines once, in order.

    Raises:
        CurioError: it is no regular file; reading a damaged `.zst` file raises it too.
    """
    check_regular(path)
    if path.suffix != PACKED_SUFFIX:
        return path.open("rb")
    return io.BufferedReader(_Unpacked(path))


class _Unpacked(io.RawIOBase):
    """The content of a `.zst` file."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._path, self._error = path, zstandard.ZstdError
        source = path.open("rb")
        self._stream = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True, closefd=True)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._stream.readinto(buffer)
        except self._error as error:
            raise CurioError(f"{self._path} cannot be unpacked: {error}", "Restore it, or delete it.") from None

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _in_one_step(path: Path) -> Generator[IO[bytes]]:
    """Yield a file that becomes `path` once it is complete.

    Raises:
        CurioError: see `disk_errors`.
    """
    with disk_errors(path), _replacing(path, partial_path(path)) as partial, partial.open("wb") as sink:
        yield sink


@contextmanager
def _replacing(path: Path, partial: Path) -> Generator[Path]:
    """Yield `partial`; on success the file written there becomes `path` in one rename, else nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        _sync_file(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _own_partial(path: Path) -> Path:
    """A temporary name that no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn a full disk or a forbidden path, met while `path` is written, into one line.

    Raises:
        CurioError: exit code 4 when the disk is full, 2 when the path cannot be written.
    """
    try:
        yield
    except CurioError:
        raise
    except Exception as error:
        if known := file_trouble(error, path):
            raise known from error
        raise


@contextmanager
def file_in_one_step(path: Path) -> Generator[Path]:
    """Yield a temporary path; on success the file written there becomes `path` in one rename, else nothing is left.

    Raises:
        CurioError: `path` exists already, or see `disk_errors`.
    """
    if path.exists():
        raise CurioError(f"{path} exists already", "Remove it, or name another file.")
    with disk_errors(path), _replacing(path, _own_partial(path)) as partial:
        yield partial
