"""The process of a stage records why it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from curiosft_cli.run.config import load
from curiosft_cli.run.files import write_json
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
