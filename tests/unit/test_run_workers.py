"""The command knows which of its processes hangs or died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curiosft_cli.run.device import GIB, main_memory
from curiosft_cli.run.processes import free_port
from curiosft_cli.run.workers import FOLDER, WAITS, Workers, report_end

WORKER = """
import time
from curiosft_cli.run.workers import register
register(beat_s=0.05)
held = bytearray(64 << 20)
print("registered", flush=True)
time.sleep(100)
"""


def start(workers: Workers, rank: int, program: str = WORKER, **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {FOLDER: str(workers.folder), "RANK": str(rank)} | variables
    child = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "registered\n"
    return child


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(silent_after=10)
    yield workers
    for pid in workers.pids().values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    workers.close()
    assert not workers.folder.exists()


def verdict(workers: Workers, polls: int = 40) -> str | None:
    """What is wrong after at most so many polls."""
    for _ in range(polls):
        time.sleep(0.15)
        if said := workers.poll():
            return said
    return None


def test_the_rank_that_hangs_is_named(workers: Workers) -> None:
    children = [start(workers, rank, WORLD_SIZE="2") for rank in (0, 1)]
    assert verdict(workers, polls=8) is None
    os.kill(children[1].pid, signal.SIGSTOP)
    assert verdict(workers) == f"rank 1 (process {children[1].pid}) hangs: no sign of life from it for about 10 s"


STEP = """
import os, time, torch
from torch import distributed
from curiosft_cli.run.workers import computing, register
register(beat_s=0.05)
distributed.init_process_group("gloo")
print("registered", flush=True)
if os.environ["RANK"] == "1":
    time.sleep(2)  # an engine's answer, say
    with computing():
        busy = time.monotonic() + 1
        while time.monotonic() < busy:
            pass
        time.sleep(100)
with computing():
    distributed.all_reduce(torch.ones(1))
"""


def test_a_rank_that_stands_still_while_it_computes_is_named(workers: Workers) -> None:
    """A wait for an engine, work, and the wait for the other rank are no hanging."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with ThreadPoolExecutor() as pool:
        children = list(pool.map(lambda rank: start(workers, rank, STEP, **shared), (0, 1)))
    assert verdict(workers, polls=24) is None
    assert verdict(workers) == f"rank 1 (process {children[1].pid}) hangs: no sign of life from it for about 10 s"


def test_a_rank_alone_on_its_machine_is_named(workers: Workers) -> None:
    child = start(workers, 3, WORLD_SIZE="4")
    assert verdict(workers, polls=8) is None
    os.kill(child.pid, signal.SIGSTOP)
    assert verdict(workers) == f"rank 3 (process {child.pid}) hangs: no sign of life from it for about 10 s"


def test_a_process_without_other_ranks_may_stop(workers: Workers) -> None:
    child = start(workers, 0, WORLD_SIZE="1")
    assert verdict(workers, polls=8) is None
    os.kill(child.pid, signal.SIGSTOP)
    assert verdict(workers, polls=20) is None


def pretended(workers: Workers, *doing: str) -> str | None:
    """One poll where the ranks do this, and all of them beat."""
    for rank, what in enumerate(doing):
        file = workers.folder / f"rank-{rank}"
        file.write_text(f"{2**22 + rank} {len(doing)}")  # no process has such an id
        (workers.folder / f"doing-{rank}").write_text(what)
        stamp = time.time_ns()
        os.utime(file, ns=(stamp, stamp))
    return workers.poll()


def test_a_rank_that_computes_without_end_is_named(workers: Workers) -> None:
    """Also in its first step; the longest part took 3 polls before, and 4 times that is more than 10 polls."""
    seen = [pretended(workers, "0", "0", "0") for _ in range(3)]
    seen += [pretended(workers, WAITS, "0", WAITS) for _ in range(9)]
    assert set(seen) == {None}
    said = pretended(workers, WAITS, "0", WAITS)
    assert (
        said
        == "rank 1 (process 4194305) hangs: it computes in one part of a step for about 13 s, the others wait for it"
    )


@settings(max_examples=10)
@given(longest=st.integers(0, 12), late=st.integers(0, 20))
def test_a_rank_that_is_slow_or_late_is_not_named(longest: int, late: int) -> None:
    """The others wait before it begins, and it takes four times as long as they."""
    workers = Workers(silent_after=10)
    history = [("0", "0")] * longest + [(WAITS, "")] * late + [(WAITS, "1")] * max(9, 4 * longest - 1) + [("2", "2")]
    assert {pretended(workers, *ranks) for ranks in history} == {None}
    workers.close()


@pytest.mark.parametrize("other", ["", "7"])
def test_where_not_all_others_wait_nobody_computes_without_end(workers: Workers, other: str) -> None:
    assert {pretended(workers, WAITS, "0", other) for _ in range(60)} == {None}


DOING = """
import os, time, torch
from torch import distributed
from curiosft_cli.run.workers import computing, register

def busy():
    while not os.path.exists(os.environ["CURIOSFT_WORKERS"] + "/go-on"):
        pass

register(beat_s=0.05)
distributed.init_process_group("gloo")
print("registered", flush=True)
with computing():
    with computing():
        pass
    if os.environ["RANK"] == "1":
        busy()
    distributed.all_reduce(torch.ones(1))
globals()["__name__"] = "torch._dynamo.convert_frame"
with computing():
    exec("while True: pass", globals())
"""


def test_a_process_tells_what_it_does(workers: Workers) -> None:
    """The part after an inner one has another number. Who compiles, computes no part."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda rank: start(workers, rank, DOING, **shared), (0, 1)))
    wait_until_told(workers, [WAITS, "2"])
    (workers.folder / "go-on").touch()
    wait_until_told(workers, ["", ""])


def wait_until_told(workers: Workers, doing: list[str], limit_s: float = 60) -> None:
    ends = time.monotonic() + limit_s
    while [file.read_text() for file in sorted(workers.folder.glob("doing-*"))] != doing:
        assert time.monotonic() < ends
        time.sleep(0.02)


RANK = """
import time
from datetime import timedelta
from curiosft_cli.run.launch import run_stage

def body(config, stage):
    import os, torch
    from torch import distributed
    distributed.init_process_group("gloo", timeout=timedelta(seconds=float(os.environ["LIMIT"])))
    distributed.all_reduce(torch.ones(1))
    time.sleep(100 if os.environ["RANK"] == "1" else 0)
    distributed.all_reduce(torch.ones(1))

run_stage(body)
"""


def test_the_rank_whose_main_thread_alone_hangs_is_named(workers: Workers, tmp_path: Path) -> None:
    """Its beats go on; the other rank's exchange ends by its limit."""
    (tmp_path / "config.json").write_text("{}")
    shared = {FOLDER: str(workers.folder), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "LIMIT": "10"}
    shared |= {"MASTER_PORT": str(free_port())}
    command = [sys.executable, "-c", RANK, str(tmp_path)]
    ranks = [subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank)}) for rank in (0, 1)]
    assert ranks[0].wait(100) == 1
    said = f"rank 1 (process {ranks[1].pid}) hangs: rank 0 waited in vain for it (launch.exchange_limit_s)"
    assert workers.poll() == said


def test_the_death_of_a_process_is_told_with_its_memory(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    child = start(workers, 0)
    workers.poll()
    assert workers.send(signal.SIGTERM)
    said = workers.death(child.pid, child.wait())
    assert said is not None and said.startswith(
        f"rank 0 (process {child.pid}) was ended by SIGTERM; it held 0.1 GiB, and "
    )
    assert workers.death(child.pid, 3) is None
    assert workers.death(1, -9) == "a process (1) was ended by SIGKILL"
    monkeypatch.setenv(FOLDER, str(workers.folder))
    report_end(1, -signal.SIGSEGV)
    assert workers.death(1, 1) == "rank 1 (process unknown) was ended by SIGSEGV"
    (workers.folder / "rank-0").unlink()


def test_memory_is_the_least_of_machine_and_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapTotal: 1048576 kB\n")
    assert main_memory(tmp_path / "meminfo", tmp_path) == (9 * GIB, 4 * GIB)
    (tmp_path / "memory.current").write_text(str(GIB))
    for limit, total, free in (("max", 9, 4), (str(3 * GIB), 4, 2)):
        (tmp_path / "memory.max").write_text(limit)
        assert main_memory(tmp_path / "meminfo", tmp_path) == (total * GIB, free * GIB)
    assert main_memory(tmp_path / "none", tmp_path / "none") == (None, None)
