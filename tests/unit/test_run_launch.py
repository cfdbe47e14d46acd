"""The process of a stage records why it stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import curiosft_cli
from curiosft_cli.run.config import load
from curiosft_cli.run.errors import TERMINATED
from curiosft_cli.run.files import write_json
from curiosft_cli.run.launch import _wait, is_first, stop_request
from curiosft_cli.run.rundir import StageDir


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        ("OSError(28, 'No space left on device', 'a.jsonl')", 4, "cannot write a.jsonl: the disk is full"),
        ("RuntimeError('I/O error: No space left on device (os error 28)')", 4, "the disk is full"),
        ("PermissionError(13, 'Permission denied', 'a.jsonl')", 2, "cannot use a.jsonl: Permission denied"),
    ],
)
def test_a_stage_names_what_the_disk_refuses(tmp_path: Path, error: str, code: int, says: str) -> None:
    stage = StageDir(tmp_path / "sft")
    write_json(stage.config_file, load("curio").config.model_dump(mode="json"))
    body = f"def body(config, stage):\n    raise {error}\n"
    program = f"from curiosft_cli.run.launch import run_stage\n{body}run_stage(body)"
    done = subprocess.run([sys.executable, "-c", program, str(stage.path)], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    status = json.loads((stage.path / "status.json").read_text())
    assert status["state"] == "failed" and says in status["error"] and "Traceback" not in done.stderr


def test_an_unknown_error_keeps_its_traceback(tmp_path: Path) -> None:
    stage = StageDir(tmp_path / "sft")
    write_json(stage.config_file, load("curio").config.model_dump(mode="json"))
    program = (
        "from curiosft_cli.run.launch import run_stage\n"
        "def body(config, stage):\n    raise OSError('of an unknown kind')\nrun_stage(body)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(stage.path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "OSError: of an unknown kind" in stage.log_file.read_text()


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_while_a_process_only_ends_makes_no_traceback(tmp_path: Path, number: str) -> None:
    stage = StageDir(tmp_path / "sft")
    write_json(stage.config_file, load("curio").config.model_dump(mode="json"))
    program = (
        "import atexit, os, signal\nfrom curiosft_cli.run.launch import run_stage\n"
        f"atexit.register(lambda: os.kill(os.getpid(), signal.{number}))\nrun_stage(lambda *_: None)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(stage.path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert stage.status()["state"] == "complete"


def test_sigterm_within_a_task_makes_no_traceback(tmp_path: Path) -> None:
    stage = StageDir(tmp_path / "rephrase")
    write_json(stage.config_file, load("curio").config.model_dump(mode="json"))
    program = (
        "import asyncio, os, signal\nfrom curiosft_cli.run.launch import run_stage\n"
        "async def ask():\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "async def work():\n    await asyncio.gather(*(asyncio.create_task(ask()) for _ in range(3)))\n"
        "run_stage(lambda *_: asyncio.run(work()))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(stage.path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (TERMINATED, "")


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        ([], True),
        (["--num_machines", "2", "--machine_rank", "0"], True),
        (["--num_machines", "2", "--machine_rank", "1"], False),
        (["--machine_rank=3", "--multi_gpu"], False),
        (["--config_file", "FILE"], False),
    ],
)
def test_only_the_first_machine_locks_the_folder(tmp_path: Path, arguments: list[str], first: bool) -> None:
    (tmp_path / "two.yaml").write_text("num_machines: 2\nmachine_rank: 1\n")
    assert is_first([word.replace("FILE", str(tmp_path / "two.yaml")) for word in arguments]) == first


def test_a_stop_request_waits_for_the_step_and_a_second_one_does_not() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_request(at_once_after_s=0.2) as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # the same one, passed on
        assert asked.is_set()
        time.sleep(0.3)
        with pytest.raises(SystemExit) as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    assert stopped.value.code == 75
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stage_that_ignores_the_signal_is_killed_after_the_limit(tmp_path: Path) -> None:
    program = (
        "import signal, time\nfrom curiosft_cli.run.workers import register\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nregister()\ntime.sleep(100)"
    )
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    started = time.monotonic()
    assert _wait([sys.executable, "-c", program], dict(os.environ), 0.5, tmp_path / "log.txt").code == TERMINATED
    assert 2 < time.monotonic() - started < 20


def test_a_child_imports_this_package_and_nothing_from_the_current_folder(tmp_path: Path) -> None:
    """The package is copied to a folder, where another copy is installed; it starts as `python -m` does."""
    shutil.copytree(Path(curiosft_cli.__file__).parent, tmp_path / "source" / "curiosft_cli")
    (tmp_path / "secrets.py").write_text("raise SystemExit('the current folder was searched')")
    program = (
        "import os, subprocess, sys\nfrom curiosft_cli.run.processes import isolated\nchild = isolated(os.environ)\n"
        "code = 'import secrets, curiosft_cli; print(curiosft_cli.__file__)'\n"
        "subprocess.run([sys.executable, '-S', '-c', code], env=child, check=True, cwd=sys.argv[1])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path / "source", env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "source" / "curiosft_cli" / "__init__.py")
