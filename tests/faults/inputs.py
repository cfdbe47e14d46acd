"""One malformed input: a folder of valid files, what is done to one of them, and the command that reads it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from boxes import write_questions

from curiosft_cli.run.files import open_lines
from faults.forked import forked

Damage = Callable[[Path], object]
"""Gets the folder of the case: config.toml, data.jsonl, model/, runs/, a/, b/, ..., all valid."""
SFT = (
    "model.system_prompt=''", "sft.precision=float32", "sft.batch_size=4", "sft.head_chunk=64", "sft.teacher.topk=64",
    "sft.warmup_steps=1", "launch.processes=0", "model.path=model",
)  # fmt: skip
EVAL = (
    "model.system_prompt=''", "eval.checkpoints=base", "eval.benchmarks=arithmetic", "eval.limit=2", "eval.samples=1",
    "eval.engine=transformers", "eval.max_completion_length=8", "eval.precision=float32", "launch.processes=0",
    "eval.grader_workers=1", "model.path=model",
)  # fmt: skip
RL = (
    "model.system_prompt=''", "data.train=data.jsonl", "rl.init=base", "rl.engine=transformers", "rl.precision=float32",
    "rl.steps=1", "rl.prompts_per_step=2", "rl.mini_batch_prompts=2", "rl.num_generations=2", "rl.preflight=off",
    "rl.max_completion_length=8", "rl.grader_workers=1", "launch.processes=0", "model.path=model",
)  # fmt: skip
COMMANDS: dict[str, tuple[str, ...]] = {
    "configuration": ("config", "check", "config.toml"),
    "data file": ("sft", "curio", *SFT, "data.train=data.jsonl", "sft.max_steps=1", "run.name=new"),
    "model folder, in sft": ("sft", "curio", *SFT, "data.train=data.jsonl", "sft.max_steps=1", "run.name=new"),
    "model folder, in eval": ("eval", "curio", *EVAL, "run.name=new"),
    "run folder": ("sft", "curio", *SFT, "data.train=data.jsonl", "sft.max_steps=4", "run.name=run"),
    "result folder": ("compare", "a", "b"),
    "saved responses": ("grade", "responses.jsonl", "--out", "graded.jsonl", "--workers", "1"),
    "saved samples": ("eval", "curio", *EVAL, "--from-generations", "samples.jsonl", "run.name=new"),
    "benchmark file": ("eval", "curio", *EVAL, "eval.data.arithmetic=bench.jsonl", "run.name=new"),
    "pass rates": ("rl", "curio", *RL, "rl.pass_rates=grades.jsonl", "run.name=new"),
    "rewrites": ("rephrase", "curio", "--judge", "pairs.jsonl", "--out", "judged.jsonl", "rephrase.verify=off"),
}


@dataclass(frozen=True)
class Input:
    """One case.

    Attributes:
        kind: of the input, as the table calls it.
        name: of the case.
        damage: makes the input malformed.
        command: what reads it; empty for that of the kind.
    """

    kind: str
    name: str
    damage: Damage = lambda _: None
    command: tuple[str, ...] = ()

    def arguments(self) -> tuple[str, ...]:
        """What stands behind `curiosft`."""
        return self.command or COMMANDS[self.kind]


def build_valid(folder: Path, model: Path) -> None:
    """Write the valid files."""
    folder.mkdir(parents=True)
    shutil.copytree(model, folder / "model")
    write_questions(folder / "data.jsonl", 12)
    (folder / "config.toml").write_text(CONFIG)
    for name in ("a", "b"):
        (folder / name / "aime24").mkdir(parents=True)
        rows = [{"id": str(n), "gold": "1", "answer": n % 2, "strict": 0.0} for n in range(6)]
        _lines(folder / name / "aime24" / "questions.jsonl", rows)
        told = {"checkpoint": name, "benchmark": "aime24", "questions": 6, "samples": 1, "avg": 50.0}
        (folder / name / "aime24" / "summary.json").write_text(json.dumps(told))
    _lines(folder / "responses.jsonl", [{"id": "r", "response": "x</think>\\boxed{5}", "gold": "5"}] * 3)
    _lines(folder / "pairs.jsonl", [{"id": "p", "post": "Problem 3. What is 3+4?", "rewrite": "What is 3+4?"}])
    _lines(folder / "bench.jsonl", [{"id": str(n), "question": f"{n}+1?", "answer": str(n + 1)} for n in range(2)])
    _lines(folder / "grades.jsonl", [{"id": f"q{n}", "strict": s} for n in range(12) for s in (0, 1)])
    sampled = forked(("eval", "curio", *EVAL, "run.name=sampled"), folder)
    assert sampled.returncode == 0, sampled.stderr
    packed = folder / "runs/sampled/eval/base/arithmetic/samples.jsonl.zst"
    (folder / "samples.jsonl").write_bytes(b"".join(open_lines(packed)))
    shutil.copy(packed, folder)
    shutil.copytree(folder / "runs/sampled/eval", folder / "c")
    interrupted = forked(COMMANDS["run folder"], folder, before=_terminate_in_step_3)
    assert interrupted.returncode == 75, interrupted.stderr


def _terminate_in_step_3() -> None:
    """A training that gets SIGTERM in its third step leaves a checkpoint with all of its state."""
    from curiosft_cli.run.log import Metrics

    log = Metrics.log

    def terminate(metrics: Metrics, step: int, values: Any) -> None:
        log(metrics, step, values)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    mock.patch.object(Metrics, "log", terminate).start()


def _lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


CONFIG = """
[run]
name = "mine"
seed = 3
[data]
train = ["arithmetic:train:8"]
[model]
path = "model"
system_prompt = "Be brief."
[sft]
objective = "curio"
learning_rate = 1e-5
adam_betas = [0.9, 0.95]
batch_size = 4
save_steps = 10
[sft.teacher]
topk = 64
tau_max = 1.4
[sft.params]
alpha = 0.5
[eval]
benchmarks = ["math500"]
samples = 4
pass_k = [1, 2]
"""


def holds(name: str, content: str | bytes) -> Damage:
    """The file has this content."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, share: float = 0.5) -> Damage:
    """Only the first part of the file is there."""
    return lambda folder: (folder / name).write_bytes((data := (folder / name).read_bytes())[: int(len(data) * share)])


def gone(name: str) -> Damage:
    """The file is missing."""
    return lambda folder: (folder / name).unlink()


def fifo(name: str) -> Damage:
    """A pipe stands in place of the file: reading it never ends."""

    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return damage


def directory(name: str) -> Damage:
    """A folder stands in place of the file."""

    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return damage


def loop(name: str) -> Damage:
    """A link to itself stands in place of the file."""

    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to((folder / name).name)

    return damage


def changed(name: str, **changes: Any) -> Damage:
    """Other values in a file with one JSON object."""

    def damage(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return damage


def row(name: str, **changes: Any) -> Damage:
    """Other values in the second line of a JSONL file; `...` takes a key out."""

    def damage(folder: Path) -> None:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        second = {k: v for k, v in (json.loads(lines[-1]) | changes).items() if v is not ...}
        (folder / name).write_text("\n".join([*lines[:-1], json.dumps(second), ""]), encoding="utf-8")

    return damage


def tensors(change: Callable[[dict[str, Any]], object], name: str = "model/model.safetensors") -> Damage:
    """Other weights."""

    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        found = load_file(folder / name)
        change(found)
        save_file(found, folder / name, metadata={"format": "pt"})

    return damage


def header(change: Callable[[dict[str, Any]], Any], name: str = "model/model.safetensors") -> Damage:
    """Another header of a safetensors file."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        size = int.from_bytes(data[:8], "little")
        told = json.loads(data[8 : 8 + size])
        text = json.dumps(change(told) or told).encode()
        (folder / name).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])

    return damage
