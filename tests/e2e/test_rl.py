"""The rl stage as a user runs it: every method learns, a run that is killed anywhere ends where it would have ended,
nothing survives it, and what cannot be trained on is said in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from boxes import build_box_model, write_questions
from safetensors.torch import load_file

from curiosft_cli.run.config import load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_jsonl
from curiosft_cli.tools.pipeline import run_stages

pytestmark = pytest.mark.e2e

RECIPE = """
[run]
name = "box"
root = "{root}"
[model]
path = "{model}"
system_prompt = ""
question_prefix = ""
[data]
train = ["{data}"]
[rl]
init = "base"
engine = "transformers"
precision = "float32"
steps = 2
prompts_per_step = 4
mini_batch_prompts = 2
num_generations = 4
max_completion_length = 32
max_tokens_per_batch = 512
learning_rate = 1e-3
save_steps = 1
grader_workers = 1
preflight = "off"
[launch]
threads = 1
"""
MARK = "CURIOSFT_TEST_MARK"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rl")
    model = build_box_model(folder / "model")
    data = write_questions(folder / "questions.jsonl", 24)
    file = folder / "box.toml"
    file.write_text(RECIPE.format(root=folder / "runs", model=model, data=data))
    return file


def train(recipe: Path, name: str, *overrides: str) -> tuple[list[dict[str, Any]], Path]:
    """Run the stage in this process; return its metrics and its folder."""
    resolved = load(str(recipe), [*overrides, f"run.name={name}", "launch.processes=0"])
    run_stages(resolved, ("rl",))
    stage = recipe.parent / "runs" / name / "rl"
    return list(read_jsonl(stage / "metrics.jsonl")), stage


@pytest.mark.parametrize("objective", ["grpo", "curio_official", "luffy", "rl_plus", "prefix_rft", "hpt"])
def test_every_method_runs_and_moves_the_weights(recipe: Path, objective: str) -> None:
    rows, stage = train(recipe, objective, f"rl.objective={objective}")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 < row["reward/mean"] < 1 and row["reward/format"] > 0.5 for row in rows)
    assert all(row["train/grad_norm"] > 0 for row in rows)
    # float32 on both sides: the engine's log-probabilities are the trainer's, for prefixed rows too.
    assert all(row["train/mismatch_nats_max"] < 1e-3 for row in rows)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (recipe.parent / "model", stage / "checkpoint-2")
    )
    assert any(not torch.equal(before[name], after[name]) for name in before)
    saved = list(read_jsonl(stage / "rollouts" / "step-000001.jsonl.zst"))
    assert {row["weights_version"] for row in saved} == {0}
    guided = [row for row in saved if row["given"]]
    assert len(guided) == {"luffy": 4, "rl_plus": 4, "prefix_rft": 4, "hpt": 4}.get(objective, 0)
    whole = [row for row in guided if not row["token_ids"]]
    assert len(whole) == {"luffy": 4, "rl_plus": 4, "hpt": 4}.get(objective, 0)
    # The verifier judges the expert as it judges everybody.
    assert all(row["reward"] == 1.0 for row in whole)


@pytest.mark.parametrize(
    ("engine", "temperature", "top_p", "updates"),
    [
        ("transformers", 0.7, 0.9, 1),
        ("transformers", 0.7, 1.0, 1),
        ("transformers", 0.7, 0.9, 2),
        ("vllm", 0.7, 0.9, 1),
        ("transformers", 1.0, 0.9, 1),
    ],
)
def test_the_correction_is_the_kept_mass_where_engine_and_trainer_are_equal(
    recipe: Path, engine: str, temperature: float, top_p: float, updates: int
) -> None:
    """In float32 pi_trainer / pi_sampler is the nucleus's mass at the sampling temperature, and 1 without a nucleus."""
    if engine == "vllm":
        pytest.importorskip("vllm")
    [row], _ = train(
        recipe, f"{engine}-{temperature}-{top_p}-{updates}", f"rl.engine={engine}", f"rl.temperature={temperature}",
        f"rl.top_p={top_p}", f"rl.mini_batch_prompts={4 // updates}", "rl.importance_sampling=on", "rl.steps=1",
        "rl.kv_cache_gib=0.1",
    )  # fmt: skip
    assert row["train/mismatch_nats_max"] < 1e-3
    assert row["train/importance_capped"] == 0.0 and row["train/grad_norm"] > 0
    if top_p < 1.0:
        assert 0.9 <= row["train/kept_mass_min"] < row["train/kept_mass_max"] <= 1.0
    for figure in ("", "_min", "_max"):
        kept = row[f"train/kept_mass{figure}"] if top_p < 1.0 else 1.0
        assert row[f"train/importance{figure}"] == pytest.approx(kept, abs=1e-3)


def test_refill_trains_on_informative_prompts_only(recipe: Path) -> None:
    rows, stage = train(
        recipe, "refill", "rl.zero_variance=refill", "rl.num_generations=2", "rl.refill_rounds=4", "rl.steps=1"
    )
    saved = list(read_jsonl(stage / "rollouts" / "step-000001.jsonl.zst"))
    rewards: dict[int, set[float]] = {}
    for row in saved:
        rewards.setdefault(row["group"], set()).add(row["reward"])
    mixed = [group for group, seen in rewards.items() if len(seen) > 1]
    assert len(rewards) > 4, "with two rollouts about half of the first four prompts teach nothing"
    assert rows[0]["completions/groups_used"] == min(4, len(mixed))


def test_sharing_prompts_changes_nothing(recipe: Path) -> None:
    _, one = train(recipe, "shared", "rl.steps=1")
    _, other = train(recipe, "plain", "rl.steps=1", "rl.share_prompts=false")
    first, second = (load_file(stage / "checkpoint-1" / "model.safetensors") for stage in (one, other))
    for name in first:
        # Adam turns rounding of tiny gradients into steps of up to the learning rate, 1e-3, here and there.
        assert (first[name] - second[name]).abs().mean() < 2e-5


def test_what_cannot_be_trained_on_is_said(recipe: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "long", "question": "word " * 3000, "answer": "1", "response": "x"},
        {"id": "gold", "question": "which?", "answer": "", "response": "x"},
    ]
    data = tmp_path / "bad.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(CurioError, match="can be trained on: 1 have an answer"):
        train(recipe, "bad", f'data.train=["{data}"]', "data.on_bad_row=skip")
    listed = json.loads((recipe.parent / "runs" / "bad" / "rl" / "skipped-train.json").read_text())
    assert listed["are longer than data.max_prompt_length"] == ["long"]


def test_pass_rates_drop_what_is_always_or_never_solved(recipe: Path, tmp_path: Path) -> None:
    grades = tmp_path / "grades.jsonl"
    rates = {f"q{index}": (0.0, 1.0, 0.5)[index % 3] for index in range(24)}
    lines = [{"id": name, "strict": float(draw < 2 * rate)} for name, rate in rates.items() for draw in range(2)]
    grades.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, stage = train(recipe, "rates", f"rl.pass_rates={grades}", "rl.steps=1")
    seen = {row["id"] for row in read_jsonl(stage / "rollouts" / "step-000001.jsonl.zst")}
    assert len(seen) == 4 and {rates[name] for name in seen} == {0.5}
    with pytest.raises(CurioError, match="is not a file"):
        train(recipe, "rates2", "rl.pass_rates=missing.jsonl")


def test_preflight_prints_a_table_and_refuses_a_reward_that_cannot_be(recipe: Path) -> None:
    done = curiosft("rl", recipe, "run.name=go", "rl.preflight_prompts=8", "--preflight").wait_done()
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("go   ") == 6 and "NO GO" not in done.stdout
    assert not (recipe.parent / "runs" / "go" / "rl").exists()
    # The prompt opens a second think tag, so no answer has the right format.
    done = curiosft("rl", recipe, "run.name=nogo", "model.prefill=<think>\n<think>\n", "--preflight").wait_done()
    assert done.returncode == 4
    assert "NO GO" in done.stdout and "Traceback" not in done.stderr


def test_a_server_samples_with_the_weights_of_each_step(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    from curiosft_cli.engine.server import serve

    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    with serve(
        recipe.parent / "model", name="box", log_file=tmp_path / "log", max_model_len=512, dtype="float32",
        kv_cache_gib=0.1,
    ) as url:  # fmt: skip
        rows, stage = train(recipe, "served", f"rl.servers={url}", "rl.handover_check_every=1")
    assert all(row["train/mismatch_nats_max"] < 1e-3 and row["train/grad_norm"] > 0 for row in rows)
    for step in (1, 2):
        saved = read_jsonl(stage / "rollouts" / f"step-{step:06d}.jsonl.zst")
        assert {row["weights_version"] for row in saved} == {step - 1}


class Started:
    """A `curiosft` command in a session of its own; every process of it carries a mark in its environment."""

    def __init__(self, *arguments: str | Path) -> None:
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "curiosft_cli.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {MARK: self.mark},
        )

    def wait_done(self, limit_s: float = 300) -> subprocess.CompletedProcess[str]:
        out, err = self.process.communicate(timeout=limit_s)
        return subprocess.CompletedProcess([], self.process.returncode, out, err)

    def wait_for(self, happened: Callable[[], bool], limit_s: float = 300) -> None:
        deadline = time.monotonic() + limit_s
        while not happened():
            assert time.monotonic() < deadline, "it did not happen in time"
            assert self.process.poll() is None, (self.process.stderr or sys.stdin).read()[-3000:]
            time.sleep(0.002)

    def alive(self) -> list[str]:
        """Processes with the mark that are not defunct."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self._is_ours(entry):
                found.append(entry.name)
        return found

    def _is_ours(self, entry: Path) -> bool:
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            return state != "Z" and f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def wait_until_gone(self, limit_s: float = 20) -> None:
        deadline = time.monotonic() + limit_s
        while left := self.alive():
            assert time.monotonic() < deadline, f"processes {left} survived"
            time.sleep(0.05)


def curiosft(*arguments: str | Path) -> Started:
    return Started(*arguments)


def sampling(stage: Path, step: int, lines: int) -> Callable[[], bool]:
    partial = stage / "rollouts" / f"step-{step:06d}.rank-00000.jsonl"
    return lambda: partial.exists() and partial.read_bytes().count(b"\n") >= lines


@pytest.mark.parametrize(("mode", "tolerance"), [("redo", 0.0), ("continue", 1e-5)])
def test_kill_9_anywhere_ends_where_the_whole_run_ends(recipe: Path, mode: str, tolerance: float) -> None:
    settings = ("rl.steps=3", "rl.save_steps=2", f"rl.resume_rollouts={mode}")
    done = curiosft("rl", recipe, f"run.name=whole-{mode}", *settings).wait_done()
    assert done.returncode == 0, done.stderr[-3000:]
    runs, name = recipe.parent / "runs", f"killed-{mode}"
    stage = runs / name / "rl"
    moments = [
        sampling(stage, 1, 3),  # while sampling and grading
        lambda: (stage / "rollouts" / "step-000002.jsonl.zst").exists(),  # the file is whole, the update is not
        lambda: any(stage.glob(".checkpoint-2.partial/*")) or (stage / "checkpoint-2").exists(),  # while saving
        sampling(stage, 3, 1),
    ]
    for moment in moments:
        started = curiosft("rl", recipe, f"run.name={name}", *settings)
        started.wait_for(moment)
        os.kill(started.process.pid, signal.SIGKILL)
        started.wait_until_gone()
    done = curiosft("rl", recipe, f"run.name={name}", *settings).wait_done()
    assert done.returncode == 0, done.stderr[-3000:]
    whole, resumed = (
        load_file(runs / n / "rl" / "checkpoint-3" / "model.safetensors") for n in (f"whole-{mode}", name)
    )
    assert all((whole[key] - resumed[key]).abs().max() <= tolerance for key in whole)
    for step in (1, 2, 3):
        first, second = (
            list(read_jsonl(runs / n / "rl" / "rollouts" / f"step-{step:06d}.jsonl.zst"))
            for n in (f"whole-{mode}", name)
        )
        assert [row["token_ids"] for row in first] == [row["token_ids"] for row in second]
    assert not list((stage / "rollouts").glob("*.rank-*"))


@pytest.mark.parametrize(
    ("ending", "code"),
    [("success", 0), ("failure", 4), ("interrupt", 130), ("terminate", 75), ("kill", -9)],
)
def test_nothing_survives(recipe: Path, ending: str, code: int) -> None:
    engine = "rl.engine=auto" if ending in ("kill", "failure") else "rl.engine=transformers"
    more = {"success": ["rl.steps=1"], "failure": ["rl.steps=1", "rl.handover_tolerance=1e-30"]}.get(
        ending, ["rl.steps=500"]
    )
    started = curiosft("rl", recipe, f"run.name={ending}", engine, "rl.kv_cache_gib=0.1", *more)
    stage = recipe.parent / "runs" / ending / "rl"
    if ending in ("interrupt", "terminate", "kill"):
        started.wait_for(sampling(stage, 2, 1))
        assert len(started.alive()) >= 3, "launcher, trainer and grader"
        number = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "kill": signal.SIGKILL}[ending]
        os.kill(started.process.pid, number)
    done = started.wait_done()
    assert done.returncode == code, done.stderr[-2000:]
    started.wait_until_gone()


def test_two_ranks_equal_one(recipe: Path) -> None:
    stages = []
    for ranks in (1, 2):
        done = curiosft("rl", recipe, f"run.name=ranks{ranks}", f"launch.processes={ranks}", "rl.steps=1").wait_done()
        assert done.returncode == 0, done.stderr[-3000:]
        stages.append(recipe.parent / "runs" / f"ranks{ranks}" / "rl")
    one, two = (list(read_jsonl(stage / "rollouts" / "step-000001.jsonl.zst")) for stage in stages)
    assert [(row["group"], row["sample"], row["token_ids"]) for row in one] == [
        (row["group"], row["sample"], row["token_ids"]) for row in two
    ]
    first, second = (next(iter(read_jsonl(stage / "metrics.jsonl"))) for stage in stages)
    for name in ("train/grad_norm", "reward/mean", "train/loss_nats", "train/entropy_nats"):
        assert first[name] == pytest.approx(second[name], rel=1e-3, abs=1e-6)
