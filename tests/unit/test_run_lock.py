"""One command in a folder: living and dead holders are told apart, on this machine and on others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from curiosft_cli.run.errors import BAD_INPUT, CurioError
from curiosft_cli.run.lock import LOCK, locked

HOLDER = """
import sys, time
from pathlib import Path
from curiosft_cli.run.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""
ELSEWHERE = {"host": "node7", "pid": 12, "since": "2026-01-01 00:00:00", "kernel": "another"}


def test_a_living_holder_is_named_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(CurioError, match=f"is in use by process {holder.pid} on ") as refused, locked(tmp_path):
        pass
    assert refused.value.exit_code == BAD_INPUT
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        with pytest.raises(CurioError, match=f"process {os.getpid()}"), locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("age_s", [0.0, 100.0])
def test_a_silent_holder_on_another_machine_is_dead(tmp_path: Path, age_s: float) -> None:
    file = tmp_path / LOCK
    file.write_text(json.dumps(ELSEWHERE))
    os.utime(file, (time.time() - age_s, time.time() - age_s))
    started = time.monotonic()
    with locked(tmp_path, dead_after_s=1.5):
        assert (time.monotonic() - started > 1.0) == (age_s == 0.0)
        assert json.loads(file.read_text())["pid"] == os.getpid()


def test_a_holder_on_another_machine_that_renews_its_stamp_lives(tmp_path: Path) -> None:
    file, done = tmp_path / LOCK, threading.Event()
    file.write_text(json.dumps(ELSEWHERE))

    def beat() -> None:
        while not done.wait(0.1):
            os.utime(file)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(CurioError, match="is in use by process 12 on node7"), locked(tmp_path, dead_after_s=30):
            pass
    finally:
        done.set()
        thread.join()
    assert json.loads(file.read_text()) == ELSEWHERE


def test_the_holder_renews_its_stamp(tmp_path: Path) -> None:
    with locked(tmp_path, beat_s=0.05):
        before = (tmp_path / LOCK).stat().st_mtime_ns
        time.sleep(0.5)
        assert (tmp_path / LOCK).stat().st_mtime_ns > before


def test_a_lock_without_a_readable_holder_is_free(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("[" * 100_000)
    with locked(tmp_path):
        pass
