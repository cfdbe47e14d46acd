"""Damaged models, tokenizers and results: one line, exit code 2, and no stage trains on nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import curiosft
from safetensors.torch import load_file, save_file

from curiosft_cli.run.rundir import StageDir

pytestmark = pytest.mark.e2e

SETTINGS = (
    "model.system_prompt=''", "data.train=arithmetic:train:8", "sft.precision=float32", "sft.max_steps=1",
    "sft.head_chunk=64", "sft.teacher.topk=64", "launch.processes=0", "rl.init=base", "rl.engine=transformers",
    "eval.checkpoints=base", "eval.benchmarks=arithmetic", "eval.limit=2", "eval.samples=1", "eval.engine=transformers",
    "eval.max_completion_length=8", "eval.precision=float32",
)  # fmt: skip
DEEP = "[" * 100_000
LOOP = "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"


def weights(change: Callable[[dict[str, torch.Tensor], str], object]) -> Callable[[Path], None]:
    """Change one tensor of the model's file."""

    def damage(model: Path) -> None:
        tensors = load_file(model / "model.safetensors")
        change(tensors, "model.layers.0.mlp.gate_proj.weight")
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    return damage


def config(**changes: Any) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        file = model / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


def holds(name: str, content: str) -> Callable[[Path], object]:
    return lambda model: (model / name).write_text(content)


def pipe(name: str) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        (model / name).unlink()
        os.mkfifo(model / name)

    return damage


def index(content: str) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        (model / "model.safetensors").unlink()
        (model / "model.safetensors.index.json").write_text(content)

    return damage


def cut(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut": (cut, "its header says"),
    "weights are text": (holds("model.safetensors", "x" * 1000), "is not a safetensors file"),
    "a NaN": (weights(lambda t, name: t[name].view(-1)[7].fill_(float("nan"))), "hold NaN or infinity"),
    "an infinity in bfloat16": (
        weights(lambda t, name: t.update({name: t[name].bfloat16().fill_(float("inf"))})), "hold NaN or infinity"
    ),
    "a tensor is missing": (weights(lambda t, name: t.pop(name)), "lack 1 tensors of the model"),
    "a tensor is too small": (weights(lambda t, name: t.update({name: t[name][:3].clone()})), "cannot open"),
    "index of numbers": (index('{"weight_map": {"a": 7}}'), "names files outside its folder"),
    "index outside": (index('{"weight_map": {"a": "../model.safetensors"}}'), "names files outside its folder"),
    "config is a list": (holds("config.json", "[]"), "expected an object"),
    "config is deep": (holds("config.json", DEEP), "cannot read"),
    "config of another kind": (config(model_type="nope"), "cannot read the configuration"),
    "config with text": (config(hidden_size="x"), "cannot"),
    "config with zero heads": (config(num_attention_heads=0), "cannot open"),
    "few embeddings": (config(vocab_size=10), "the model 10 embeddings"),
    "tokenizer is missing": (lambda model: (model / "tokenizer.json").unlink(), "has no vocabulary"),
    "tokenizer is null": (holds("tokenizer.json", "null"), "cannot open a tokenizer"),
    "tokenizer is deep": (holds("tokenizer.json", DEEP), "cannot open a tokenizer"),
    "stops are text": (holds("generation_config.json", '{"eos_token_id": "x"}'), "expected token ids"),
    "stops beyond the vocabulary": (holds("generation_config.json", '{"eos_token_id": 512}'), "token ids from 0 to 511"),
    "config with NaN": (config(rms_norm_eps=float("nan")), "rms_norm_eps is NaN"),
    "whole numbers": (weights(lambda t, name: t.update({name: t[name].long()})), "holds whole numbers (I64)"),
    "tokenizer is a pipe": (pipe("tokenizer.json"), "is a pipe or a device"),
    "template loops": (holds("chat_template.jinja", LOOP), "it still ran after 2 s"),
    "template divides by zero": (holds("chat_template.jinja", "{{ 1 // 0 }}"), "by zero"),
}  # fmt: skip


@pytest.mark.parametrize("stage", ["sft", "eval"])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_model_is_one_line(tiny_model: Path, tmp_path: Path, name: str, stage: str) -> None:
    damage, says = DAMAGE[name]
    shutil.copytree(tiny_model, tmp_path / "model")
    damage(tmp_path / "model")
    done = curiosft(stage, "curio", *SETTINGS, f"model.path={tmp_path / 'model'}", f"run.root={tmp_path / 'runs'}")
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("curiosft: ")]
    assert len(lines) == 1 and says in lines[0] and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/run/*/checkpoint-*"))


def result(folder: Path, scores: list[Any], **summary: Any) -> Path:
    folder.mkdir(parents=True)
    rows = [{"id": str(n), "gold": "1", "answer": score, "strict": 0.0} for n, score in enumerate(scores)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {"checkpoint": "sft", "benchmark": "aime24", "questions": len(rows), "samples": 1, "avg": 50.0}
    (folder / "summary.json").write_text(json.dumps(told | summary))
    return folder


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: result(f, [0.0, float("nan"), 1.0]), r"line 2: answer = nan is no score"),
        (lambda f: result(f, [0.0, 7.0]), "answer = 7.0 is no score"),
        (lambda f: result(f, [0.0, "1"]), "answer = '1' is no score"),
        (lambda f: result(f, [0.0], questions=30), "has 1 questions in 1 lines, summary.json counts 30"),
        (lambda f: (result(f, [0.0]) / "questions.jsonl").unlink(), "has 0 questions"),
        (lambda f: (result(f, [0.0]) / "summary.json").rename(f / "samples.jsonl.zst"), "is not finished"),
        (lambda f: (result(f, [0.0]) / "summary.json").write_text(DEEP), "cannot read"),
        (lambda f: (result(f, [0.0]) / "questions.jsonl").write_text("[1]\n"), "line 1 is no JSON object"),
        (lambda f: result(f, [0.0, True]), "answer = True is no score"),
        (lambda f: result(f, [0.0], benchmark=["aime24"]), "benchmark is ['aime24'], expected text"),
        (lambda f: result(f, [0.0], settings="x"), "settings is 'x', expected an object"),
    ],
)
def test_compare_refuses_damaged_and_half_results(tmp_path: Path, damage: Callable[[Path], Any], says: str) -> None:
    result(tmp_path / "a" / "aime24", [0.0, 1.0, 1.0])
    damage(tmp_path / "b" / "aime24")
    done = curiosft("compare", tmp_path / "a", tmp_path / "b")
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_results_that_were_changed_after_their_end_are_not_compared(tmp_path: Path) -> None:
    result(tmp_path / "a" / "aime24", [0.0, 1.0])
    result(tmp_path / "eval" / "sft" / "aime24", [0.0, 0.0])
    StageDir(tmp_path / "eval").set_status("complete")
    assert curiosft("compare", tmp_path / "a", tmp_path / "eval").returncode == 0
    result(tmp_path / "better", [1.0, 1.0])
    shutil.copy(tmp_path / "better" / "questions.jsonl", tmp_path / "eval" / "sft" / "aime24")
    for folder in ("eval", "eval/sft"):
        done = curiosft("compare", tmp_path / "a", tmp_path / folder)
        assert done.returncode == 2 and "sft/aime24/questions.jsonl was changed or deleted" in done.stderr
