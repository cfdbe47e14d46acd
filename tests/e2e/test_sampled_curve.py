"""Benchmarks between training steps: the numbers, the best checkpoint, and a training that does not notice."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import tracked
from boxes import build_box_model, write_questions
from command import curiosft, last_of_each
from safetensors.torch import load_file

from curiosft_cli.evaluation.tasks import load_tasks
from curiosft_cli.run.config import load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_jsonl
from curiosft_cli.run.rundir import resolve_checkpoint
from curiosft_cli.stages.step_evaluation import StepEvaluation, benchmarks_between_steps
from curiosft_cli.tools.pipeline import run_stages

pytestmark = pytest.mark.e2e

RECIPE = """
[run]
root = "{folder}/runs"
[model]
path = "{folder}/model"
system_prompt = ""
question_prefix = ""
[data]
train = ["{folder}/train.jsonl"]
[sft]
precision = "float32"
batch_size = 4
max_steps = 3
max_tokens_per_batch = 256
learning_rate = 1e-3
warmup_steps = 0
keep_last = 1
head_chunk = 64
engine = "transformers"
teacher = {{ topk = 64 }}
lora = {{ rank = 2, dropout = 0.2 }}
[rl]
init = "base"
precision = "float32"
engine = "transformers"
steps = 2
prompts_per_step = 2
mini_batch_prompts = 2
num_generations = 2
max_completion_length = 24
max_tokens_per_batch = 256
preflight = "off"
grader_workers = 1
[eval]
max_completion_length = 24
max_prompt_length = {longest}
grader_workers = 1
data = {{ arithmetic = "{folder}/test.jsonl" }}
[log]
every = 3
[launch]
processes = 0
"""
LONGEST = 100
LOOK = ("eval_benchmarks=arithmetic", "eval_samples=3", "eval_limit=4")


@pytest.mark.parametrize("keep_system", [True, False])
def test_questions_are_read_as_an_evaluation_reads_them(tmp_path: Path, keep_system: bool) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    file = tmp_path / "aime.jsonl"
    file.write_text(
        "".join(json.dumps(row) + "\n" for row in [{"prompt": turns, "answer": "2"}, {"question": "Q?", "answer": "3"}])
    )
    settings = ["sft.eval_benchmarks=aime24", "sft.eval_limit=1", "eval.benchmarks=aime24", f"eval.data.aime24={file}"]
    config = load("sft", [*settings, f"eval.keep_system={str(keep_system).lower()}"]).config
    (looked,), (evaluated,) = benchmarks_between_steps(config, config.sft), load_tasks(config)
    assert looked.problems == evaluated.problems[:1]
    assert looked.problems[0].system == ("Be brief." if keep_system else "")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curve")
    build_box_model(folder / "model")
    write_questions(folder / "train.jsonl", 8)
    test = write_questions(folder / "test.jsonl", 3, seed=1)
    long = {"id": "q3", "question": "which " + "7" * LONGEST, "answer": "1"}
    test.write_text(
        test.read_text() + json.dumps(long) + "\n" + json.dumps({**long, "id": "q4", "question": "not asked"}) + "\n"
    )
    (folder / "box.toml").write_text(RECIPE.format(folder=folder, longest=LONGEST))
    return folder / "box.toml"


def trained(
    recipe: Path, stage: str, name: str, *settings: str, more: Sequence[str] = ()
) -> tuple[Path, dict[int, dict[str, Any]]]:
    """Train in this process; return the stage's folder and its metrics by step."""
    changed = [f"{stage}.{setting}" for setting in settings]
    resolved = load(str(recipe), last_of_each(f"run.name={name}", *changed, *more))
    run_stages(resolved, (stage,))
    folder = recipe.parent / "runs" / name / stage
    return folder, {row["step"]: row for row in read_jsonl(folder / "metrics.jsonl")}


def test_sft_logs_the_curve_keeps_the_best_and_trains_as_without(recipe: Path) -> None:
    folder, rows = trained(recipe, "sft", "watched", *LOOK, "eval_steps=2")
    assert list(rows) == [2, 3]  # what was looked at is logged whatever log.every says; and the last step
    for step, row in rows.items():
        saved = list(read_jsonl(folder / "samples" / f"step-{step:06d}" / "arithmetic.jsonl.zst"))
        assert [(s["id"], s["sample"]) for s in saved] == [(f"q{q}", sample) for q in range(4) for sample in range(3)]
        assert [s["finish_reason"] for s in saved[9:]] == ["prompt_too_long"] * 3 and not any(
            s["text"] for s in saved[9:]
        )
        assert all(s["tokens"] for s in saved[:9])
        assert row["eval/arithmetic/tokens_mean"] == sum(s["tokens"] for s in saved) / 12
        assert 0 < row["eval/arithmetic/avg"] == row["eval/avg"] <= row["eval/arithmetic/pass@3"] <= 100
        assert row["eval/arithmetic/standard_error"] >= 0 and 0 < row["eval/arithmetic/entropy_nats"] < 6.3
    scores = {step: row["eval/avg"] for step, row in rows.items()}
    best = folder / f"checkpoint-{max(scores, key=scores.__getitem__)}"
    assert resolve_checkpoint("watched:sft@best", load(str(recipe)).config) == str(best)
    assert {entry.name for entry in folder.glob("checkpoint-*")} == {best.name, "checkpoint-3"}

    alone, _ = trained(recipe, "sft", "alone")
    for file in ("model.safetensors", "state/rank-00000.safetensors"):
        expected, got = (load_file(stage / "checkpoint-3" / file) for stage in (alone, folder))
        assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_rl_logs_the_same_curve_with_the_engine_of_its_rollouts(recipe: Path) -> None:
    folder, rows = trained(recipe, "rl", "watched", *LOOK)
    alone, plain = trained(recipe, "rl", "alone")
    assert 0 < rows[2]["eval/arithmetic/avg"] <= 100 and not [key for key in plain[2] if key.startswith("eval/")]
    expected, got = (load_file(stage / "checkpoint-2" / "model.safetensors") for stage in (alone, folder))
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_has_the_same_keys_a_table_and_one_run_over_a_resume(
    recipe: Path, tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboardX" if tracker == "tensorboard" else tracker, reason=f"{tracker} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads the variable when it is imported
    evaluate, settings = StepEvaluation.evaluate, [*LOOK, "eval_steps=2"]

    def stopped(self: StepEvaluation, *arguments: Any) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(SystemExit, match="75"):
        patched.setattr(StepEvaluation, "evaluate", stopped)
        trained(recipe, "sft", tracker, *settings, more=(f"log.trackers={tracker}", "log.every=1"))
    time.sleep(1)  # tensorboardX names its file by the second
    folder, rows = trained(recipe, "sft", tracker, *settings, more=(f"log.trackers={tracker}", "log.every=1"))
    assert capfd.readouterr().out == ""  # what a tracker says is no result
    found = getattr(tracked, tracker)(tmp_path if tracker == "trackio" else folder)
    assert len(found.runs) == 1 and "sft.learning_rate" in found.config
    logged = {step: row.keys() - {"step"} for step, row in rows.items()}
    # tensorboardX puts a _ in place of the @ of pass@3, and TensorBoard itself does not.
    logged, seen = (
        {step: {key.replace("@", "_") for key in keys} for step, keys in of.items()} for of in (logged, found.keys)
    )
    assert sorted(logged) == [1, 2, 3] and {step: seen[step] for step in logged} == logged
    assert set(found.tables) == {(2, "samples/arithmetic"), (3, "samples/arithmetic")}
    sampled = list(read_jsonl(folder / "samples" / "step-000002" / "arithmetic.jsonl.zst"))
    table = found.tables[2, "samples/arithmetic"].replace("\\\\", "\\")  # some hold JSON
    assert all(word in table for row in sampled for word in row["text"].split())


def test_a_tracker_has_a_table_of_rollouts(recipe: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    folder, _ = trained(recipe, "rl", "shown", "save_steps=1", more=("log.trackers=tensorboard", "log.table_rows=3"))
    tables = tracked.tensorboard(folder).tables
    assert set(tables) == {(1, "samples/rollouts"), (2, "samples/rollouts")}
    (file,) = folder.glob("rollouts/step-000002*")
    sampled, questions = list(read_jsonl(file))[:3], list(read_jsonl(recipe.parent / "train.jsonl"))
    asked = {str(row["id"]): row["question"] for row in questions}
    assert all(asked[row["id"]] in tables[2, "samples/rollouts"] for row in sampled)
    assert all(row["reason"] in tables[2, "samples/rollouts"] for row in sampled)


def test_the_best_checkpoint_by_held_out_loss_and_the_choice_for_rl(recipe: Path) -> None:
    held_out, once = f"data.validation={recipe.parent / 'train.jsonl'}", ("eval_steps=1", "keep_last=3", "save_steps=1")
    more = (held_out, "log.every=1")
    folder, rows = trained(recipe, "sft", "held", *LOOK, *once, "best_by=heldout_loss", more=more)
    losses = {step: row["eval/loss_nats"] for step, row in rows.items()}
    best = min(losses, key=losses.__getitem__)
    assert resolve_checkpoint("held:sft@best", load(str(recipe)).config) == str(folder / f"checkpoint-{best}")

    words = ("choose", folder.parent, "rl.num_generations=3")
    logged = json.loads(curiosft(*words, "--json").stdout)
    for step, row in zip((1, 2, 3), logged["rows"], strict=True):
        assert (row["checkpoint"], row["held_out_nats"]) == (f"held:sft@{step}", losses[step])
        assert row["avg"] == pytest.approx(rows[step]["eval/avg"])
        assert row["passed"] == pytest.approx(rows[step]["eval/pass@k"])
        assert row["entropy_nats"] == rows[step]["eval/entropy_top20_nats"]
    assert "scores: evaluation 'between steps', 4 questions of arithmetic." in logged["notes"]

    sampled = curiosft(*words, "--sample", "eval.engine=transformers", "eval.limit=2")
    assert sampled.returncode == 0, sampled.stderr
    assert (
        "scores: evaluation 'choose', 2 questions of arithmetic." in sampled.stdout and "--sample" not in sampled.stdout
    )
    assert {entry.name for entry in (folder.parent / "choose").glob("sft@*")} == {"sft@1", "sft@2", "sft@3"}

    alone, _ = trained(recipe, "sft", "alone")  # the same training, without held-out rows
    words = ("choose", alone.parent, held_out, "rl.num_generations=1")
    assert "missing: held-out loss of every checkpoint" in curiosft(*words).stdout
    assert curiosft(*words, "--sample", "eval.engine=transformers", "eval.benchmarks=arithmetic").returncode == 0
    (measured,) = json.loads(curiosft(*words, "--json").stdout)["rows"]
    assert measured["held_out_nats"] == pytest.approx(losses[3], rel=1e-5)


def test_no_prompt_that_may_be_sent_is_said_before_training(recipe: Path) -> None:
    settings = ["run.name=long", "sft.eval_benchmarks=arithmetic", "eval.max_prompt_length=2"]
    with pytest.raises(CurioError, match=r"eval\.max_prompt_length = 2 leaves no prompt of arithmetic"):
        run_stages(load(str(recipe), settings), ("sft",))
