"""`kill -9` at chosen moments of a supervised run, one after another: the last start ends where an unbroken run ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.e2e

SETTINGS = (
    "model.system_prompt=''",
    "data.train=arithmetic:train:12",
    "sft.precision=float32",
    "sft.batch_size=3",
    "sft.max_steps=6",
    "sft.max_response_length=64",
    "sft.max_tokens_per_batch=512",
    "sft.learning_rate=1e-3",
    "sft.warmup_steps=1",
    "sft.save_steps=2",
    "sft.keep_last=1",
    "sft.head_chunk=64",
    "sft.teacher.topk=64",
    "sft.teacher.sync_every=2",
    "sft.lora.rank=2",
    "sft.lora.dropout=0.2",
    "launch.processes=0",
)

# Each start is a fork of one process that has imported everything and computed nothing yet.
SCRIPT = """
import os, shutil, signal, sys
from curiosft_cli.run.config import load
from curiosft_cli.run.log import Metrics
from curiosft_cli.run.rundir import RunDir, StageDir
from curiosft_cli.stages import step_evaluation as sampled_curve
from curiosft_cli.stages import sft
from curiosft_cli.tools.pipeline import run_stages
from curiosft_cli.train import checkpoint
from curiosft_cli.train import weight_copy as copies
from curiosft_cli.train import feed
from curiosft_cli.train import suppliers as inputs
from curiosft_cli.train import loop
from pathlib import Path

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def die_after(owner, name, call):
    real, seen = getattr(owner, name), []
    def counted(*args, **kwargs):
        result = real(*args, **kwargs)
        seen.append(name)
        return die() if len(seen) == call else result
    setattr(owner, name, counted)

def half_of_them(copy, real=copies.WeightCopy.beside_student):
    pairs = list(real(copy))
    yield from pairs[: len(pairs) // 2]
    die()

STARTS = {
    "half of the teacher is mixed": lambda: setattr(copies.WeightCopy, "beside_student", half_of_them),
    "step 2 is logged": lambda: die_after(Metrics, "log", 2),
    "the model of checkpoint 2 is written": lambda: die_after(checkpoint, "_save_model", 1),
    "checkpoint 2 stands": lambda: setattr(StageDir, "prune", die),
    "half of the teacher is mixed after step 4": lambda: setattr(copies.WeightCopy, "beside_student", half_of_them),
    "checkpoint 4 stands, half of the old one is pruned": lambda: die_after(shutil, "rmtree", 2),
    "the optimizer has made step 5": lambda: die_after(loop, "clip_and_step", 1),
    "never": lambda: None,
}

def start(name, prepare):
    resolved = load("curio", [*sys.argv[1:], f"run.name={name}"])
    child = os.fork()
    if child == 0:
        prepare()
        run_stages(resolved, ("sft",))
        os._exit(0)
    end = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(end, *RunDir(Path(resolved.config.run.root) / name).stage("sft").checkpoints(), flush=True)

start("whole", lambda: None)
for prepare in STARTS.values():
    start("broken", prepare)
"""
KILLED = "-9"
ENDS = ["0 6", KILLED, KILLED, KILLED, f"{KILLED} 2", f"{KILLED} 2", f"{KILLED} 2 4", f"{KILLED} 2 4", "0 6"]


def test_a_run_killed_at_every_moment_that_matters_ends_where_an_unbroken_one_ends(
    tiny_model: Path, tmp_path: Path
) -> None:
    arguments = [*SETTINGS, f"model.path={tiny_model}", f"run.root={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=400)
    assert done.stdout.splitlines() == ENDS, done.stderr[-3000:]
    whole, broken = (tmp_path / name / "sft" / "checkpoint-6" for name in ("whole", "broken"))
    for file in ("model.safetensors", "state/rank-00000.safetensors"):
        expected, got = load_file(whole / file), load_file(broken / file)
        assert expected.keys() == got.keys()
        assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert (whole / "state" / "state.json").read_text() == (broken / "state" / "state.json").read_text()
    assert logged(whole) == logged(broken)
    assert [entry.name for entry in broken.parent.glob("*checkpoint*")] == ["checkpoint-6"]


def logged(checkpoint: Path) -> list[dict[str, float]]:
    """The metrics of the run without what the clock and the machine decide."""
    rows = [json.loads(line) for line in (checkpoint.parent / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "tokens/s", "memory/"))} for row in rows]
