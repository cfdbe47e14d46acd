"""`curiosft doctor` on this machine as it is, and with faults planted in front of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from curiosft_cli.tools.doctor.probe import NAMES

ARGUMENTS = [sys.executable, "-m", "curiosft_cli.cli", "doctor"]
FEW_FILES = 300
SECRET = "sk-do-not-show-9c1f"


def test_a_sound_machine_can_run_the_quickstart(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DEEPSEEK_API_KEY": SECRET}
    done = subprocess.run(
        [*ARGUMENTS, "quickstart", f"run.root={tmp_path}", "--json"], env=environment, capture_output=True, text=True
    )
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert {*NAMES, "python", "packages", "disk", "open files", "hub", "all-reduce", "vllm"} <= set(found)
    errors = [finding for finding in found.values() if finding["level"] == "error"]
    assert (done.returncode, errors) == (0, [])
    assert {found[name]["level"] for name in ("python", "training step", "generation", "all-reduce", "vllm")} == {"ok"}
    assert all(bool(finding["fix"]) == (finding["level"] != "ok") for finding in found.values())
    assert SECRET not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_each_planted_fault_is_one_line_with_its_fix(tmp_path: Path) -> None:
    """Modules that cannot be imported, few open files, no key, no hub, a folder that cannot be written."""
    front = tmp_path / "front"
    front.mkdir()
    for name in ("vllm", "torch"):
        (front / f"{name}.py").write_text(f"raise ImportError('planted {name} \\x1b[2J')")
    (tmp_path / "secrets.py").write_text("raise SystemExit('ran from the current folder')")
    environment = {**os.environ, "PYTHONPATH": str(front), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    environment |= {"DEEPSEEK_API_KEY": "", "OMP_NUM_THREADS": "4000"}
    settings = [
        "curio", "run.root=/proc/no", 'run.stages=["rephrase","sft","rl"]', "launch.processes=2", "rephrase.concurrency=400"
    ]  # fmt: skip
    command = ["sh", "-c", f'ulimit -n {FEW_FILES} && exec "$@"', "sh", *ARGUMENTS, *settings]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    lines = done.stdout.splitlines()
    expected = {
        "error    disk": "cannot write to /proc",
        "error    open files": f"at most {FEW_FILES}",
        "error    key of rephrase": "DEEPSEEK_API_KEY is not set",
        "error    hub": "HF_HUB_OFFLINE is set, and not in the local cache: Qwen/Qwen2.5-Math-7B, Hao0oWang/CurioSFT_Data, Elliott/Openr1-Math-46k-8192",
        **{f"error    {name}": "planted torch" for name in NAMES},
        "error    all-reduce": "planted torch",
        "error    vllm": "cannot be imported: 'ImportError: planted vllm",
        "warning  threads": "4000 for ",
    }
    for start, says in expected.items():
        (at,) = [at for at, line in enumerate(lines) if line.startswith(start + " ")]
        assert says in lines[at]
        assert lines[at + 1].strip().startswith("-> ")
    assert lines[-1].endswith(f"{len(expected) - 1} errors for run.stages (rephrase, sft, rl)")
    assert "\x1b" not in done.stdout
    assert "ran from the current folder" not in done.stdout + done.stderr


def test_a_configuration_that_is_not_legal_is_one_line() -> None:
    done = subprocess.run([*ARGUMENTS, "curio", "sft.learning_rat=1"], capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
