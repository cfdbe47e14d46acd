"""What a command knows of its stage's processes: which of them live, hang or died, and how much memory they held.

Each process writes its id to a file in a temporary folder of the command, and renews the time stamp of that file as
long as it goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from curiosft_cli.run.device import GIB, main_memory

FOLDER = "CURIOSFT_WORKERS"
"""Environment variable with the folder."""
ENDED = "ended.json"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
BEAT_S = 2.0
EXCHANGES = ("torch.distributed", "torch.nn.parallel", "torch.autograd")
"""Packages of torch where a process waits for the other ranks."""
_computing = threading.Event()


@contextlib.contextmanager
def computing() -> Generator[None]:
    """Inside, the process waits for nothing but the other ranks: a main thread that stands still there hangs."""
    outer = _computing.is_set()
    _computing.set()
    try:
        yield
    finally:
        if not outer:
            _computing.clear()


def register(beat_s: float = BEAT_S, busy_share: float = 0.01) -> None:
    """Make this process known to the command that started it, if one did, and renew its stamp from now on.

    Args:
        beat_s: seconds between two stamps.
        busy_share: while it is `computing`, a process that used less of a core than this since the last stamp, and does
            not wait for the other ranks, gets no new stamp.
    """
    if FOLDER not in os.environ:
        return
    file = Path(os.environ[FOLDER]) / f"rank-{os.environ.get('RANK', '0')}"
    file.write_text(str(os.getpid()), encoding="ascii")

    def beat() -> None:
        used = time.process_time()
        with contextlib.suppress(OSError):  # the command is gone, and so is its folder
            while True:
                time.sleep(beat_s)
                before, used = used, time.process_time()
                if not _computing.is_set() or used - before > busy_share * beat_s or _waits_for_others():
                    os.utime(file)

    threading.Thread(target=beat, daemon=True, name="beat").start()


def _waits_for_others() -> bool:
    """Whether the main thread is inside an exchange of torch's."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    module = frame.f_globals.get("__name__", "") if frame else ""
    return any(module == package or module.startswith(f"{package}.") for package in EXCHANGES)


def report_wait() -> None:
    """Tell the command that this process waited for another one in vain."""
    if FOLDER in os.environ:
        (Path(os.environ[FOLDER]) / f"waited-{os.environ.get('RANK', '0')}").touch()


def report_end(rank: int, code: int) -> None:
    """Tell the command how a process ended that only a launcher between them saw; `code` as in subprocess."""
    (Path(os.environ[FOLDER]) / ENDED).write_text(json.dumps({"rank": rank, "code": code}), encoding="ascii")


@dataclass
class Workers:
    """The processes of one stage on this machine.

    Attributes:
        folder: where they make themselves known.
        silent_after: polls without a new stamp after which one of several processes counts as hung. Polls are counted,
            not seconds, because a machine may be suspended as a whole.
    """

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="curiosft-")))
    silent_after: int = 40
    _stamps: dict[int, int] = field(default_factory=dict)
    _beats: dict[int, int] = field(default_factory=dict)
    _silent: dict[int, int] = field(default_factory=dict)
    _held: dict[int, float] = field(default_factory=dict)
    _free: int | None = None

    def pids(self) -> dict[int, int]:
        """Process id of each rank."""
        found: dict[int, int] = {}
        for file in self.folder.glob("rank-*"):
            with contextlib.suppress(ValueError, OSError):  # it is being written
                found[int(file.name.removeprefix("rank-"))] = int(file.read_text(encoding="ascii"))
        return found

    def send(self, number: int) -> bool:
        """Send a signal to every process; False if none is known."""
        pids = self.pids()
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(pids)

    def poll(self) -> str | None:
        """Note memory and stamps; call it regularly. Returns what is wrong once a process hangs."""
        pids, self._free = self.pids(), main_memory().free
        for rank, pid in pids.items():
            with contextlib.suppress(OSError, IndexError, ValueError):
                self._held[rank] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / GIB
            with contextlib.suppress(OSError):
                stamp = (self.folder / f"rank-{rank}").stat().st_mtime_ns
                moved = stamp != self._stamps.get(rank)
                self._stamps[rank], self._silent[rank] = stamp, 0 if moved else self._silent.get(rank, 0) + 1
                self._beats[rank] = self._beats.get(rank, 0) + moved
        for rank, pid in sorted(pids.items()):
            # The first stamp is that of the file itself.
            if len(pids) > 1 and self._beats.get(rank, 0) > 1 and self._silent[rank] >= self.silent_after:
                return f"rank {rank} (process {pid}) hangs: no sign of life from it for about {self.silent_after} s"
        return self._waited_for(pids)

    def _waited_for(self, pids: Mapping[int, int]) -> str | None:
        """The process that another one waited for in vain, which itself waited for none."""
        waited = {int(file.name.removeprefix("waited-")) for file in self.folder.glob("waited-*")}
        if not waited:
            return None
        hung = [f"rank {rank} (process {pid})" for rank, pid in sorted(pids.items()) if rank not in waited]
        who = hung[0] if hung else "a rank of another machine"
        return f"{who} hangs: rank {min(waited)} waited in vain for it (launch.exchange_limit_s)"

    def death(self, child: int, code: int) -> str | None:
        """How a process ended that a signal ended, with the last known memory; None if none was.

        Args:
            child: process id of the only process, or of the launcher.
            code: how that one ended, as subprocess gives it.
        """
        pids = self.pids()
        rank = next((rank for rank, pid in pids.items() if pid == child), None)
        with contextlib.suppress(OSError, ValueError):
            ended = json.loads((self.folder / ENDED).read_text(encoding="ascii"))
            rank, code = ended["rank"], ended["code"]
        if code >= 0:
            return None
        who = f"a process ({child})" if rank is None else f"rank {rank} (process {pids.get(rank, 'unknown')})"
        said = f"{who} was ended by {signal.Signals(-code).name}"
        if rank in self._held:
            said += f"; it held {self._held[rank]:.1f} GiB"
            said += f", and {self._free / GIB:.1f} GiB were free" if self._free is not None else ""
        return said

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
