"""One command at a time in a stage's folder, also where several machines share the folder.

The lock is an advisory lock of the operating system on the file `lock`, so it ends with its process, also by `kill -9`.
A file system may not pass it on to other machines. So the file names its holder, whose time stamp it renews: a holder
on another machine is dead when the stamp does not change for a minute.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.log import Console

LOCK = "lock"
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""How a file system says that it has no locks."""


@contextmanager
def locked(folder: Path, beat_s: float = 10.0, dead_after_s: float = 60.0) -> Generator[None]:
    """Hold the lock of a stage's folder.

    Args:
        folder: made if it does not exist.
        beat_s: seconds between two time stamps.
        dead_after_s: seconds without a new stamp after which a holder on another machine counts as dead.

    Raises:
        CurioError: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    file, released = _acquired(path, dead_after_s), threading.Event()

    def beat() -> None:
        while not released.wait(beat_s):
            with contextlib.suppress(OSError):
                os.utime(file.fileno())

    thread = threading.Thread(target=beat, daemon=True, name="lock")
    thread.start()
    try:
        yield
    finally:
        released.set()
        thread.join()
        path.unlink(missing_ok=True)  # while it is still locked
        file.close()


def is_held(folder: Path, dead_after_s: float = 60.0) -> bool:
    """Whether a command seems to work in this folder: its lock file has a recent time stamp. The lock is left alone."""
    try:
        return time.time() - (folder / LOCK).stat().st_mtime < dead_after_s
    except FileNotFoundError:
        return False


def _acquired(path: Path, dead_after_s: float) -> IO[bytes]:
    while True:
        file = path.open("a+b")
        try:
            ours, holder = _lock(file), _holder(file)
            if ours is False:
                raise _in_use(path, holder)
            # A lock that the same kernel gave us has no other holder any more.
            certain = ours and holder.get("kernel") == _kernel()
            if holder and not certain and not _falls_silent(path, holder, dead_after_s):
                raise _in_use(path, holder)
            if not _is_at(file, path):  # its holder removed it in the meantime
                file.close()
                continue
            file.truncate(0)
            me = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            file.write(json.dumps({**me, "kernel": _kernel()}).encode())
            file.flush()
            return file
        except BaseException:
            file.close()
            raise


def _lock(file: IO[bytes]) -> bool | None:
    """Whether this process has the lock now; None if the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def _holder(file: IO[bytes]) -> dict[str, Any]:
    """Who wrote the file; empty if it is new or unreadable."""
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _falls_silent(path: Path, holder: dict[str, Any], dead_after_s: float, poll_s: float = 1.0) -> bool:
    """Wait for a new time stamp of a holder elsewhere. False: there is one. True: it is dead, or its file is gone."""
    try:
        seen = path.stat().st_mtime_ns
        if (left_s := dead_after_s - (_clock_ns(path.parent) - seen) / 1e9) > 0:
            Console().say(f"{path} is of {_name(holder)}; waiting up to {left_s:.0f} s for a sign of life")
        while (_clock_ns(path.parent) - seen) / 1e9 < dead_after_s:
            time.sleep(poll_s)
            with path.open("rb"):  # a network file system asks for new times when a file is opened
                if path.stat().st_mtime_ns != seen:
                    return False
    except FileNotFoundError:
        pass
    return True


def _clock_ns(folder: Path) -> int:
    """The time by the clock that stamps the files of this folder."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime_ns


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _kernel() -> str:
    """The running kernel of this machine. Containers share it, and locks with it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _name(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('pid')} on {holder.get('host')} (since {holder.get('since')})"


def _in_use(path: Path, holder: dict[str, Any]) -> CurioError:
    return CurioError(
        f"{path.parent} is in use by {_name(holder)}", "Wait for it or stop it, or use another run.name or eval.name."
    )
