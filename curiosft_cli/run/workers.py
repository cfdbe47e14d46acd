"""What a command knows of its stage's processes: which of them live, hang or died, and how much memory they held.

Each process writes its id to a file in a temporary folder of the command, and renews the time stamp of that file as
long as it goes on. It also writes what it does: it waits for the other ranks, or computes a part of a step.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Generator, Mapping, Sequence
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
COMPILERS = ("torch._dynamo.convert_frame", "torch._inductor.compile_fx")
"""Modules of torch that compile: for as long as it takes, and not in every rank."""
WAITS = "waits"


class _Part:
    """The part of a step that this process computes: another number after each change of it, None outside of all."""

    number: int | None = None
    numbers = itertools.count()


@contextlib.contextmanager
def computing() -> Generator[None]:
    """Inside, a part of a step, the process waits for nothing but the other ranks."""
    inside = _Part.number is not None
    _Part.number = next(_Part.numbers)
    try:
        yield
    finally:
        _Part.number = next(_Part.numbers) if inside else None


def register(beat_s: float = BEAT_S, busy_share: float = 0.02) -> None:
    """Make this process known to the command that started it, if one did, and renew its stamp from now on.

    Args:
        beat_s: seconds between two stamps.
        busy_share: a process that used less of a core than this since the last stamp stands still. If it is `computing`
            and does not wait for the other ranks, it gets no new stamp.
    """
    if FOLDER not in os.environ:
        return
    folder, rank = Path(os.environ[FOLDER]), os.environ.get("RANK", "0")
    file = folder / f"rank-{rank}"
    file.write_text(f"{os.getpid()} {os.environ.get('WORLD_SIZE', '1')}", encoding="ascii")

    def beat() -> None:
        used = time.process_time()
        with contextlib.suppress(OSError):  # the command is gone, and so is its folder
            while True:
                time.sleep(beat_s)
                before, used = used, time.process_time()
                part, modules = _Part.number, _main_thread()
                stands = used - before <= busy_share * beat_s
                waits = stands and _within(modules[:1], EXCHANGES)
                computes = part is not None and not _within(modules, COMPILERS)
                doing = WAITS if waits else str(part) if computes and not stands else ""
                (folder / f"doing-{rank}").write_text(doing, encoding="ascii")
                if waits or not (computes and stands):
                    os.utime(file)

    threading.Thread(target=beat, daemon=True, name="beat").start()


def _main_thread() -> list[str]:
    """The modules whose functions the main thread is in, the innermost first."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_stack(frame)] if frame else []


def _within(modules: Sequence[str], packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for module in modules for package in packages)


def report_wait() -> None:
    """Tell the command that this process waited for another one in vain."""
    if FOLDER in os.environ:
        (Path(os.environ[FOLDER]) / f"waited-{os.environ.get('RANK', '0')}").touch()


def report_end(rank: int, code: int) -> None:
    """Tell the command how a process ended that only a launcher between them saw; `code` as in subprocess."""
    (Path(os.environ[FOLDER]) / ENDED).write_text(json.dumps({"rank": rank, "code": code}), encoding="ascii")


@dataclass
class _Seen:
    """What the polls saw of one process.

    Attributes:
        stamps: different stamps so far.
        silent: polls since the last new one.
        doing: `WAITS`, the number of a part of a step, or nothing that is watched.
        polls: polls since it does that.
        longest: polls in the longest part of a step that it finished.
        held: its memory at the last poll, in GiB.
    """

    stamp: int = 0
    stamps: int = 0
    silent: int = 0
    doing: str = ""
    polls: int = 0
    longest: int = 0
    held: float | None = None

    def look(self, folder: Path, rank: int, pid: int) -> None:
        with contextlib.suppress(OSError, IndexError, ValueError):
            self.held = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / GIB
        with contextlib.suppress(OSError):
            stamp = (folder / f"rank-{rank}").stat().st_mtime_ns
            moved = stamp != self.stamp
            self.stamp, self.stamps, self.silent = stamp, self.stamps + moved, 0 if moved else self.silent + 1
        with contextlib.suppress(OSError):
            doing = (folder / f"doing-{rank}").read_text(encoding="ascii")
            if doing != self.doing:
                self.longest = max(self.longest, self.polls) if self.computes else self.longest
                self.doing, self.polls = doing, 0
            self.polls += 1

    @property
    def computes(self) -> bool:
        """Whether it is in a part of a step, and does not wait in it."""
        return self.doing not in ("", WAITS)


@dataclass
class Workers:
    """The processes of one stage on this machine.

    Attributes:
        folder: where they make themselves known.
        silent_after: polls without a new stamp after which one of several processes counts as hung, and polls that the
            others wait for it before it counts as computing without end. Polls are counted, not seconds, because a
            machine may be suspended as a whole.
        longer: it must also compute so many times longer than any part of a step took before.
    """

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="curiosft-")))
    silent_after: int = 40
    longer: int = 4
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _free: int | None = None

    def pids(self) -> dict[int, int]:
        """Process id of each rank."""
        return {rank: pid for rank, (pid, _) in self._registered().items()}

    def _registered(self) -> dict[int, tuple[int, int]]:
        """Process id of each rank of this machine, and the number of all ranks."""
        found: dict[int, tuple[int, int]] = {}
        for file in self.folder.glob("rank-*"):
            with contextlib.suppress(ValueError, OSError):  # it is being written
                pid, ranks = file.read_text(encoding="ascii").split()
                found[int(file.name.removeprefix("rank-"))] = int(pid), int(ranks)
        return dict(sorted(found.items()))

    def send(self, number: int) -> bool:
        """Send a signal to every process; False if none is known."""
        pids = self.pids()
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(pids)

    def poll(self) -> str | None:
        """Note memory and stamps; call it regularly. Returns what is wrong once a process hangs."""
        registered, self._free = self._registered(), main_memory().free
        for rank, (pid, _) in registered.items():
            self._seen.setdefault(rank, _Seen()).look(self.folder, rank, pid)
        for rank, (pid, ranks) in registered.items():
            if ranks > 1 and (why := self._silent(rank) or self._endless(rank)):
                return f"rank {rank} (process {pid}) hangs: {why}"
        return self._waited_for({rank: pid for rank, (pid, _) in registered.items()})

    def _silent(self, rank: int) -> str | None:
        seen = self._seen[rank]
        if seen.stamps < 2 or seen.silent < self.silent_after:  # the first stamp is that of the file itself
            return None
        return f"no sign of life from it for about {seen.silent} s"

    def _endless(self, rank: int) -> str | None:
        """Whether it computes and computes in one part of a step while all others of this machine wait."""
        seen = self._seen[rank]
        others = [other for number, other in self._seen.items() if number != rank]
        waited = min((other.polls if other.doing == WAITS else 0 for other in others), default=0)
        longest = max(known.longest for known in self._seen.values())
        if (
            not seen.computes
            or waited < self.silent_after
            or seen.polls < max(self.silent_after, self.longer * longest)
        ):
            return None
        return f"it computes in one part of a step for about {seen.polls} s, the others wait for it"

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
        held = self._seen[rank].held if rank in self._seen else None
        if held is not None:
            said += f"; it held {held:.1f} GiB"
            said += f", and {self._free / GIB:.1f} GiB were free" if self._free is not None else ""
        return said

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
