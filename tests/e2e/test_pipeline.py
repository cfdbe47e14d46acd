"""The real command line on a tiny real model: all four stages, resume after kill -9, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command import curiosft as curiosft_here
from command import curiosft_in_a_process
from safetensors.torch import load_file

from curiosft_cli.run.config import load
from curiosft_cli.run.errors import BAD_INPUT, CurioError
from curiosft_cli.tools.pipeline import run_stages

pytestmark = pytest.mark.e2e

Cli = Callable[..., subprocess.CompletedProcess[str]]

RECIPE = """
[run]
name = "tiny"
root = "{root}"
stages = ["rephrase", "sft", "rl", "eval"]
[model]
path = "{model}"
system_prompt = ""
[data]
train = ["rephrase", "arithmetic:train:24"]
[rephrase]
data = ["arithmetic-forum:train:3:1"]
base_url = "local"
max_completion_length = 24
[sft]
precision = "float32"
batch_size = 4
max_steps = 6
max_tokens_per_batch = 1024
learning_rate = 1e-3
warmup_steps = 2
save_steps = 2
head_chunk = 64
teacher = {{ sync_every = 2, topk = 64 }}
[rl]
precision = "float32"
steps = 2
prompts_per_step = 2
mini_batch_prompts = 1
num_generations = 3
max_completion_length = 12
max_tokens_per_batch = 2048
learning_rate = 1e-4
kv_cache_gib = 0.1
grader_workers = 1
[eval]
precision = "float32"
checkpoints = ["base", "sft", "rl"]
benchmarks = ["arithmetic"]
limit = 3
samples = 2
pass_k = [1, 2]
max_completion_length = 12
kv_cache_gib = 0.1
grader_workers = 1
[launch]
threads = 1
"""


curiosft = partial(curiosft_in_a_process, limit_s=500)


@pytest.fixture(scope="module")
def recipe(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text(RECIPE.format(root=file.parent / "runs", model=tiny_model))
    return file


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def metrics(stage: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]


def deterministic(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith(("time/", "tokens/s", "memory/"))}


def test_the_four_stages_run_and_a_second_time_are_skipped(recipe: Path) -> None:
    curiosft("run", recipe)
    run = recipe.parent / "runs" / "tiny"

    questions = [json.loads(line) for line in (run / "rephrase" / "questions.jsonl").read_text().splitlines()]
    assert len(questions) == 3
    # A random model rewrites nothing that could pass: the originals are kept, whole.
    assert all(row["question"] == row["original_question"] for row in questions)

    steps = metrics(run / "sft")
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["train/loss_nats"] < steps[0]["train/loss_nats"]

    from transformers import AutoModelForCausalLM, AutoTokenizer

    for stage, step in (("sft", 6), ("rl", 2)):
        checkpoint = run / stage / f"checkpoint-{step}"
        assert AutoModelForCausalLM.from_pretrained(checkpoint).config.vocab_size
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        assert tokenizer is not None and tokenizer.chat_template
    rollouts = metrics(run / "rl")
    assert [row["step"] for row in rollouts] == [1, 2]
    # float32 on both sides: the engine's log-probabilities are the trainer's.
    assert all(row["train/mismatch_nats_max"] < 1e-3 for row in rollouts)

    results = json.loads((run / "eval" / "summary.json").read_text())["results"]
    assert [row["checkpoint"] for row in results] == ["base", "sft", "rl"]
    assert all(row["questions"] == 3 and row["samples"] == 2 for row in results)
    assert results[0]["entropy_nats"] != results[1]["entropy_nats"]

    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    again = curiosft("run", recipe)
    assert again.stderr.count("complete already") == 4
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


@pytest.fixture(scope="module")
def whole(recipe: Path) -> Path:
    """The sft stage of a run that nothing interrupted."""
    curiosft("sft", recipe, 'data.train=["arithmetic:train:24"]', "run.name=whole")
    return recipe.parent / "runs" / "whole" / "sft"


def test_kill_9_of_everything_and_the_same_command_equal_an_unbroken_run(recipe: Path, whole: Path) -> None:
    root = recipe.parent / "runs"
    data, name = 'data.train=["arithmetic:train:24"]', "killed"
    command = [sys.executable, "-m", "curiosft_cli.cli", "sft", str(recipe), data, f"run.name={name}"]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    stage = root / name / "sft"
    deadline = time.monotonic() + 200
    while not (stage / "checkpoint-2" / "COMPLETE").exists():
        assert time.monotonic() < deadline and child.poll() is None, "no checkpoint to resume from"
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    wait_until_gone(stage)
    assert json.loads((stage / "status.json").read_text())["state"] == "running"

    curiosft("sft", recipe, data, f"run.name={name}")
    expected, resumed = weights(whole / "checkpoint-6"), weights(stage / "checkpoint-6")
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    assert [deterministic(row) for row in metrics(stage)] == [deterministic(row) for row in metrics(whole)]
    assert not list(stage.glob("*partial*")) and not list(stage.glob(".*"))


def test_sigterm_ends_every_process_with_code_75(recipe: Path) -> None:
    data = 'data.train=["arithmetic:train:24"]'
    command = [sys.executable, "-m", "curiosft_cli.cli", "sft", str(recipe), data, "run.name=stopped"]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    stage = recipe.parent / "runs" / "stopped" / "sft"
    deadline = time.monotonic() + 200
    while not (stage / "metrics.jsonl").exists():
        assert time.monotonic() < deadline and child.poll() is None, "training did not start"
        time.sleep(0.005)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 75
    wait_until_gone(stage)


def test_the_quickstart_s_recipe_trains_its_own_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the place of the unpacked model lies a tiny one. Nothing has to be given or run before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "curiosft" / "smollm2-135m-instruct"
    shutil.copytree(tiny_model, folder)
    (folder / "COMPLETE").touch()
    small = ("sft.max_steps=1", "sft.precision=float32", "launch.processes=0", f"run.root={tmp_path / 'runs'}")
    done = curiosft_here("sft", "quickstart", *small)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "quickstart" / "sft" / "checkpoint-1").is_dir()


def test_the_quickstart_cleans_keeps_entropy_and_says_what_is_next(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [f"model.path={tiny_model}", "launch.processes=0", "eval.limit=2", "eval.samples=1", "eval.pass_k=[1]"]
    small += [f"{stage}.precision=float32" for stage in ("sft", "rl", "eval")]
    small += [f"{stage}.engine=transformers" for stage in ("rl", "eval")]
    small += [f"{stage}.max_completion_length=8" for stage in ("rl", "eval")]
    small += ["sft.max_steps=4", "sft.save_steps=4", "sft.eval_steps=4", "sft.teacher.topk=64", "rl.preflight=off"]
    small += ["rl.steps=1", "rl.prompts_per_step=2", "rl.mini_batch_prompts=2", "rl.num_generations=2"]
    done = curiosft_here("quickstart", *small)
    assert done.returncode == 0, done.stderr
    posts, entropy, *_, end = done.stdout.strip().split("\n\n")
    assert posts.startswith("posts cleaned by demonstration: ") and "14 accepted" in posts and "before: " in posts
    _, curio, plain = (line.split() for line in entropy.splitlines())
    for name, row in (("quickstart", curio), ("quickstart-plain", plain)):
        logged = (tmp_path / "runs" / name / "sft" / "metrics.jsonl").read_text().splitlines()
        assert row[1:] == [f"{json.loads(line)['train/entropy_nats']:.3f}" for line in logged]
    assert curio[0] == "sft.objective=curio" and plain[0] == "sft.objective=sft"
    first = [
        json.loads((tmp_path / "runs" / name / "sft" / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("quickstart", "quickstart-plain")
    ]
    assert first[0]["train/entropy_nats"] == pytest.approx(first[1]["train/entropy_nats"], rel=1e-5)  # the same rows
    assert "report: runs/quickstart/report.html" in end and (tmp_path / "runs" / "quickstart" / "report.html").exists()
    commands = [line.partition("curiosft ")[2].partition("  ")[0].split() for line in end.splitlines()[-3:]]
    assert [command[0] for command in commands] == ["compare", "choose", "rl"]
    assert curiosft_here(*commands[0]).returncode == 0
    again = curiosft_here("quickstart", *small)
    assert again.returncode == 0 and "sft done before, plain sft done before" in again.stdout


def wait_until_gone(stage: Path, limit_s: float = 20.0) -> None:
    """No process of a killed run survives it."""
    deadline = time.monotonic() + limit_s
    while True:
        alive = [pid for pid in processes() if str(stage) in command_line(pid)]
        if not alive:
            return
        assert time.monotonic() < deadline, f"processes {alive} survived the launcher"
        time.sleep(0.1)


def processes() -> list[str]:
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sft", "curio", "model.path=./nowhere"], "there is no model folder ./nowhere"),
        (["sft", "curio", "sft.objective=curios"], "did you mean 'curio'"),
    ],
    ids=["found by the stage's process", "found before it starts"],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = curiosft(*arguments, f"run.root={tmp_path}", check=False)
    assert done.returncode == BAD_INPUT
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("stage", "overrides", "said"),
    [
        ("rl", [], "no complete checkpoint"),
        ("sft", ['data.train=["missing.jsonl"]'], "missing.jsonl"),
        ("sft", ['data.train=["rephrase"]'], "no cleaned questions"),
        ("sft", ["sft.eval_benchmarks=arithmetik"], "did you mean 'arithmetic'"),
        ("eval", ['eval.benchmarks=["arithmetik"]'], "did you mean 'arithmetic'"),
    ],
)
def test_what_a_stage_cannot_use_is_named(recipe: Path, stage: str, overrides: list[str], said: str) -> None:
    resolved = load(str(recipe), [*overrides, "run.name=bad", "launch.processes=0"])
    with pytest.raises(CurioError, match=said) as refused:
        run_stages(resolved, (stage,))
    assert refused.value.exit_code == BAD_INPUT


def test_changed_settings_are_refused_with_the_keys(recipe: Path, whole: Path) -> None:
    arguments = ("sft", recipe, 'data.train=["arithmetic:train:24"]', "run.name=whole", "sft.max_steps=7")
    done = curiosft(*arguments, check=False)
    assert done.returncode == BAD_INPUT
    assert "sft.max_steps: 6 -> 7" in done.stderr
