"""What a user sees of a training on a terminal, and without one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from command import curiosft

pytestmark = pytest.mark.e2e

NOISY = """
import os, sys
from curiosft_cli.objectives import TokenLoss

def noisy(rows):
    print("NOISE", file=sys.stderr)
    os.write(2, b"NOISE\\n")
    return TokenLoss(-rows.logp)
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SHOW_CURSOR = "\x1b[?25h"


def settings(model: Path, folder: Path, *more: str) -> list[str]:
    return [
        *("sft", f"model.path={model}", "model.system_prompt=''", f"run.root={folder / 'runs'}", "run.name=seen"),
        *("data.train=arithmetic:train:240", "sft.batch_size=4", "sft.precision=float32", "sft.epochs=1"),
        *("sft.max_tokens_per_batch=1024", "sft.objective=noisy.py:noisy", "launch.threads=1", *more),
    ]


def on_a_terminal(arguments: list[str], folder: Path, watch: Callable[[str, int], None], columns: int = 80) -> str:
    """Run a command whose standard streams are a terminal of its own; returns what it showed.

    Args:
        watch: gets what was shown so far, and the master's end of the terminal.
    """
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(columns)}
        os.execv(sys.executable, [sys.executable, "-m", "curiosft_cli.cli", *arguments])
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = b""
    while True:
        try:
            some = os.read(master, 65536)
        except OSError:  # the last process that had the terminal is gone
            break
        shown += some
        watch(shown.decode(errors="replace"), master)
    os.close(master)
    return shown.decode(errors="replace") + f"\nended with {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"


def test_a_training_on_a_terminal_is_one_live_line_without_noise(tiny_model: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle, then the same command to its end."""
    (tmp_path / "noisy.py").write_text(NOISY)
    arguments, pressed = ["sft", *settings(tiny_model, tmp_path, "sft.save_steps=20")], []

    def press_ctrl_c(shown: str, master: int) -> None:
        if "/60" in shown and not pressed:
            pressed.append(os.write(master, b"\x03"))

    first = on_a_terminal(arguments, tmp_path, press_ctrl_c)
    assert "interrupted; the same command continues" in first and f"ended with {-signal.SIGINT}" in first
    second = on_a_terminal(arguments, tmp_path, lambda *_: None)
    for shown in (first, second):
        assert "NOISE" not in shown and "Traceback" not in shown and not re.search(r"\[\d+/60\]", shown)
        assert shown.rindex(SHOW_CURSOR) > shown.rindex("\x1b[?25l")
    drawn = [line for line in re.split(r"[\r\n]+", ESCAPES.sub("", second)) if "━" in line]
    assert any(
        re.search(r"━+ 60/60 \d:\d\d:\d\d sft: loss \d\.\d+, entropy \d\.\d+ nats, \d+ t", line) for line in drawn
    )
    assert all(len(line) <= 80 for line in drawn)
    checkpoint = tmp_path / "runs" / "seen" / "sft" / "checkpoint-60"
    assert re.search(r"sft: complete in \d+ s; step 60: loss \d\.\d{3} nats, entropy \d\.\d{3} nats, [\d,]+ t", second)
    assert f"sft: checkpoint {checkpoint}" in second and f"next: curiosft eval {' '.join(arguments[1:3])}" in second
    log = (tmp_path / "runs" / "seen" / "sft" / "log.txt").read_text()
    assert log.count("NOISE") >= 12 and "sft: noisy.py:noisy, 240 rows, steps 0 to 60" in log


def test_without_a_terminal_there_are_plain_lines(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    done = curiosft("sft", *settings(tiny_model, tmp_path, "launch.processes=0"), folder=tmp_path)
    assert done.returncode == 0 and "\x1b" not in done.stderr
    assert "[60/60] sft: loss " in done.stderr and "sft: complete in " in done.stderr
    assert done.stderr.splitlines()[-1].startswith("next: curiosft eval sft ")


def test_the_traceback_of_a_bug_reaches_the_terminal(tmp_path: Path) -> None:
    """The standard error of the stage is elsewhere then."""
    master, slave = pty.openpty()
    (tmp_path / "config.json").write_text(json.dumps({}))
    program = (
        "from curiosft_cli.run.launch import run_stage\ndef body(c, s):\n    raise KeyError('a bug')\nrun_stage(body)"
    )
    environment = os.environ | {"CURIOSFT_TERMINAL": os.ttyname(slave)}
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    os.close(slave)
    assert done.returncode == 1 and not done.stderr
    assert "KeyError: 'a bug'" in os.read(master, 65536).decode()
    assert "KeyError: 'a bug'" in (tmp_path / "log.txt").read_text()
    os.close(master)


@pytest.mark.parametrize(("words", "offered"), [("curiosft s", "sft"), ("curiosft sft cur", "curio-rl")])
def test_a_shell_completes_commands_and_recipes(words: str, offered: str) -> None:
    """As the function does that `--install-completion bash` writes."""
    asked = {"_CURIOSFT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-m", "curiosft_cli.cli"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=True)
    found = done.stdout.split()
    assert offered in found and all(word.startswith(words.split()[-1]) for word in found)
