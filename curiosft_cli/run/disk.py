"""What a disk can refuse, as one line each: a full disk, a folder that is read-only, a path that is no folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.files import PARTIAL_SUFFIX

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


@contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn what the disk refuses while `path` is made into one line.

    Raises:
        CurioError: exit code 4 when the disk is full, 2 when the path cannot be written.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        # Libraries in Rust and C++ report a full disk by its text alone.
        said = str(error)
        if number in _FULL or any(os.strerror(code) in said for code in _FULL):
            raise CurioError(
                f"cannot write {path}: the disk is full", "Free some space, then run the same command again.", GUARD
            ) from error
        if number in _REFUSED:
            raise CurioError(
                f"cannot write {path}: {os.strerror(number)}", "Name a path in a folder that you may write to."
            ) from error
        raise


@contextmanager
def file_in_one_step(path: Path) -> Generator[Path]:
    """Yield a temporary path; on success the file written there becomes `path` in one rename, else nothing is left.

    Raises:
        CurioError: `path` exists already, or see `disk_errors`.
    """
    if path.exists():
        raise CurioError(f"{path} exists already", "Remove it, or name another file.")
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
