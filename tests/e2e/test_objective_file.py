"""An objective from the user's own file: the guide's examples as they stand, resuming, and every way to get it wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from command import curiosft, last_of_each

GUIDE = (Path(__file__).parents[2] / "docs" / "adding-an-objective.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(\w+\.py)`:\n\n((?:    .*\n|\n)+)", GUIDE))
COMMANDS = re.findall(r"^    curiosft (sft .*)", GUIDE, re.MULTILINE)
SMALL = (
    "model.system_prompt=''", "data.train=arithmetic:train:8", "sft.precision=float32", "sft.batch_size=4",
    "sft.max_steps=2", "sft.max_tokens_per_batch=512", "sft.head_chunk=64", "sft.save_steps=1", "launch.processes=0",
)  # fmt: skip

pytestmark = pytest.mark.e2e


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the files of the guide."""
    for name, block in FILES.items():
        (tmp_path / name).write_text(re.sub("^    ", "", block, flags=re.MULTILINE))
    return tmp_path


def run(folder: Path, model: Path, command: str, *more: str) -> tuple[int, str]:
    stage, recipe, *settings = shlex.split(command)
    done = curiosft(stage, recipe, *last_of_each(*settings, f"model.path={model}", *SMALL, *more), folder=folder)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1] if done.stderr else ""


def test_the_guide_s_files_train_by_the_guide_s_commands(tiny_model: Path, folder: Path) -> None:
    assert set(FILES) == {"focal.py", "bonus.py"} and len(COMMANDS) == 2
    for command in COMMANDS:
        assert run(folder, tiny_model, command)[0] == 0
    rows = (folder / "runs" / "focal" / "sft" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 2 and 0 < json.loads(rows[1])["train/focal_weight"] < 1


def test_a_changed_file_is_refused_by_a_run_that_began_with_another(tiny_model: Path, folder: Path) -> None:
    command, file = COMMANDS[0], folder / "focal.py"
    assert run(folder, tiny_model, command, "sft.max_steps=1")[0] == 0
    digest = json.loads((folder / "runs" / "focal" / "sft" / "config.json").read_text())["sft"]["objective_sha256"]
    file.write_text(file.read_text() + "# changed\n")
    code, said = run(folder, tiny_model, command, "sft.max_steps=1")
    assert code == 2 and f"sft.objective_sha256: {digest} -> " in said
    code, said = run(folder, tiny_model, command, f"sft.objective_sha256={digest}", "run.name=pinned")
    assert code == 2 and "focal.py was changed" in said
    assert not list(folder.rglob("__pycache__"))


HEAD = "from curiosft_cli.objectives import Objective, TokenLoss\n"


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("mine.py", "", "names a file and no function. Write FILE.py:FUNCTION."),
        ("other.py:f", "", "cannot read the objective's file other.py: No such file or directory. The path is relative"),
        ("mine.py:f", "def f(:", "mine.py cannot be loaded: SyntaxError: invalid syntax (line 2)"),
        ("mine.py:f", "x = 1\nx.y", "cannot be loaded: AttributeError: 'int' object has no attribute 'y' (line 3)"),
        ("mine.py:f", "raise SystemExit", "cannot be loaded: SystemExit"),
        ("mine.py:f", "def g(rows): pass", "mine.py has no 'f'. legal: g"),
        ("mine.py:f", "f = 3", "mine.py:f is a int, expected a function or an Objective"),
        ("mine.py:f", "def f(rows, power): pass", "takes (rows, power), expected the rows, then only keyword-only"),
        ("mine.py:f", "def f(*, power: float = 1.0): pass", "expected the rows"),
        ("mine.py:f", "def f(rows, *, power: float): pass", "parameter power has no default"),
        ("mine.py:f", "def f(rows, *, power=1.0): pass", "parameter power has no type"),
        ("mine.py:f", "def f(rows, *, power: float = 'a'): pass", "sft.params.power = 'a' is not legal"),
        ("mine.py:f", "def f(rows):\n    return rows.logp\n", "mine.py:f returned a Tensor, expected TokenLoss(loss)"),
        ("mine.py:f", "def f(rows):\n    return 1 / 0\n", "mine.py:f failed: ZeroDivisionError: division by zero (line 3)"),
        ("mine.py:f", "def f(rows):\n    return TokenLoss(rows.logp.sum())\n", "tensor of shape () as 'loss', expected one"),
        ("mine.py:f", "def f(rows):\n    return TokenLoss(-rows.logp, {'a': 1})\n", "returned a int as 'a'"),
        ("mine.py:f", "def f(rows):\n    return TokenLoss(-rows.logp.detach())\n", "returned a loss without a gradient"),
        ("mine.py:f", "def f(rows):\n    return TokenLoss((rows.logp, rows.logp))\n", "returned 2 terms, expected 1"),
        ("mine.py:f", "def g(rows):\n    pass\nf = Objective(g, frozenset({'moon'}))", "needs moon, which this stage does"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_code_2(
    tiny_model: Path, tmp_path: Path, name: str, source: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text(HEAD + source)
    code, line = run(tmp_path, tiny_model, f"sft sft sft.objective={name}")
    assert code == 2 and line.startswith("curiosft: ") and said in line


def test_a_pipe_is_not_read(tiny_model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.py")
    code, line = run(tmp_path, tiny_model, "sft sft sft.objective=mine.py:f")
    assert code == 2 and "mine.py is a pipe or a device" in line
