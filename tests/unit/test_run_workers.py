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

from curiosft_cli.run.device import GIB, main_memory
from curiosft_cli.run.processes import free_port
from curiosft_cli.run.workers import FOLDER, Workers, report_end

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
    children = [start(workers, rank) for rank in (0, 1)]
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
        busy = time.monotonic() + 2
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
