"""The rl stage as a user runs it: every method learns, a run that is killed anywhere ends where it would have ended,
nothing survives it, and what cannot be trained on is said in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from boxes import RECIPE, build_box_model, write_questions
from command import curiosft as curiosft_here
from command import curiosft_in_a_process
from ranks import train_on
from safetensors.torch import load_file
from started import Started
from tiny import build_tiny_tokenizer

from curiosft_cli.run.config import load
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.files import read_jsonl
from curiosft_cli.run.processes import free_port
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.tools.pipeline import run_preflight, run_stages

pytestmark = pytest.mark.e2e


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


METHODS = ("grpo", "curio_official", "luffy", "rl_plus", "prefix_rft", "hpt")
# With Adam's own, the rounding of tiny gradients becomes steps of up to the learning rate.
ROUGH = "rl.adam_epsilon=1e-4"
CASES: dict[str, tuple[str, ...]] = {method: (f"rl.objective={method}", ROUGH) for method in METHODS}
CASES["adapters"] = ("rl.objective=grpo", "rl.lora.rank=4", ROUGH)
THREE_STEPS = ("rl.steps=3", "rl.save_steps=2", ROUGH)


@pytest.fixture(scope="module")
def two_ranks(recipe: Path) -> Path:
    """The folder of all these runs, trained by two processes that hold a part of the model each."""
    root = recipe.parent / "two-ranks"
    own = (f"run.root={root}", "launch.processes=0")
    runs = CASES | {"whole": THREE_STEPS}
    train_on(2, [("rl", str(recipe), *given, *own, f"run.name={name}") for name, given in runs.items()])
    return root


@pytest.mark.parametrize("name", CASES)
def test_every_method_moves_the_weights_of_two_processes_as_of_one(recipe: Path, two_ranks: Path, name: str) -> None:
    rows, stage = train(recipe, name, *CASES[name])
    assert_same_weights(stage / "checkpoint-2", two_ranks / name / "rl" / "checkpoint-2", 1e-6)
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
    assert len(guided) == {"luffy": 4, "rl_plus": 4, "prefix_rft": 4, "hpt": 4}.get(name, 0)
    whole = [row for row in guided if not row["token_ids"]]
    assert len(whole) == {"luffy": 4, "rl_plus": 4, "hpt": 4}.get(name, 0)
    # The verifier judges the expert as it judges everybody.
    assert all(row["reward"] == 1.0 for row in whole)


def test_epochs_and_the_authors_reward(recipe: Path) -> None:
    """24 questions, 5 a step: 4 whole steps an epoch. Prompts without a prefill: no format, yet rewarded."""
    rows, stage = train(
        recipe, "epochs", "rl.epochs=1", "data.drop_last=true", "rl.grader=official", "rl.prompts_per_step=5",
        "rl.mini_batch_prompts=5", "model.prefill=",
    )  # fmt: skip
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    saved = [row for step in (1, 4) for row in read_jsonl(stage / "rollouts" / f"step-{step:06d}.jsonl.zst")]
    assert len(saved) == 2 * 5 * 4
    assert all(row["grade"]["format_error"] == "F1" for row in saved) and any(row["reward"] for row in saved)


@pytest.mark.parametrize(
    ("engine", "temperature", "top_p", "updates"),
    [
        ("transformers", 0.7, 0.9, 1),
        ("transformers", 0.7, 1.0, 1),
        ("transformers", 0.7, 0.9, 2),
        ("vllm", 0.7, 0.9, 1),
        ("vllm", 0.7, 1.0, 1),
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


@pytest.mark.parametrize("mode", ["drop", "refill"])
def test_groups_of_equal_rewards_are_dropped_or_replaced(recipe: Path, mode: str) -> None:
    """With two rollouts about half of the first four prompts teach nothing."""
    [row], stage = train(
        recipe, mode, f"rl.zero_variance={mode}", "rl.num_generations=2", "rl.refill_rounds=4", "rl.steps=1"
    )
    rewards: dict[int, set[float]] = {}
    for saved in read_jsonl(stage / "rollouts" / "step-000001.jsonl.zst"):
        rewards.setdefault(saved["group"], set()).add(saved["reward"])
    mixed = [group for group, seen in rewards.items() if len(seen) > 1]
    assert len(rewards) == 4 if mode == "drop" else len(rewards) > 4
    assert 0 < row["completions/groups_used"] == min(4, len(mixed))


def test_a_guard_rail_stops_with_a_checkpoint_and_code_4(recipe: Path) -> None:
    settings = ("rl.guards.action=stop", "rl.guards.patience=1", "rl.guards.reward_max=1e-9", "rl.save_steps=100")
    with pytest.raises(CurioError, match="stuck at 1") as raised:
        train(recipe, "guarded", *settings)
    assert raised.value.exit_code == GUARD
    assert StageDir(recipe.parent / "runs" / "guarded" / "rl").checkpoints() == [1]


def test_a_reward_of_0_throughout_stops_with_its_likely_cause(recipe: Path, tmp_path: Path) -> None:
    """No answer is right. The run counts on over a restart, stops again, and goes on if it may only warn."""
    data = write_questions(tmp_path / "questions.jsonl", 8)
    data.write_text(re.sub(r'"answer": "."', '"answer": "777"', data.read_text()))
    settings = ("rl", recipe, f"data.train={data}", "rl.save_steps=100", "rl.guards.patience=2", "rl.steps=4")
    stage = StageDir(recipe.parent / "runs" / "hopeless" / "rl")
    done = curiosft_in_a_process(*settings, "run.name=hopeless", check=False)
    assert done.returncode == GUARD, done.stderr
    assert "the reward is stuck at 0: reward/mean = 0 is below 1e-09 (2 steps, to 2)" in done.stderr
    assert "none is right: the questions are too hard. The last checkpoint is complete. Train with sft" in done.stderr
    assert stage.checkpoints() == [2]
    here = (*settings, "run.name=hopeless", "launch.processes=0")
    assert curiosft_here(*here).returncode == GUARD and stage.checkpoints() == [2, 3]
    assert curiosft_here(*here, "rl.guards.reward_min_action=warn").returncode == 0 and stage.checkpoints() == [3, 4]


def test_a_prompt_without_the_question_is_found_before_the_first_step(recipe: Path, tmp_path: Path) -> None:
    """The chat template of this checkpoint forgets the messages: no reward could be right but by luck."""
    shutil.copytree(recipe.parent / "model", tmp_path / "model")
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = "<|im_start|>assistant\n"
    tokenizer.save_pretrained(tmp_path / "model")
    settings = (f"model.path={tmp_path / 'model'}", "rl.preflight=stop", "rl.preflight_prompts=4")
    with pytest.raises(CurioError, match="no reward can be right: prompt: 4 of 4 lack the question") as raised:
        train(recipe, "blind", *settings)
    assert raised.value.exit_code == GUARD
    stage = StageDir(recipe.parent / "runs" / "blind" / "rl")
    assert not stage.checkpoints() and not list(read_jsonl(stage.metrics_file))


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


def test_preflight_prints_a_table_and_refuses_a_reward_that_cannot_be(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_preflight(load(str(recipe), ["run.name=go", "rl.preflight_prompts=8", "launch.processes=0"]))
    table = capsys.readouterr().out
    assert table.count("go   ") == 6 and "NO GO" not in table
    assert not (recipe.parent / "runs" / "go" / "rl").exists()
    # Behind a second think tag the model writes nothing that it has learnt.
    done = curiosft("rl", recipe, "run.name=nogo", "model.prefill=<think>\n<think>\n", "--preflight").wait_done()
    assert done.returncode == 4
    assert "NO GO" in done.stdout and "Traceback" not in done.stderr


def curiosft(*arguments: str | Path) -> Started:
    return Started(*arguments)


def sampling(stage: Path, step: int, lines: int) -> Callable[[], bool]:
    partial = stage / "rollouts" / f"step-{step:06d}.rank-00000.jsonl"
    return lambda: partial.exists() and partial.read_bytes().count(b"\n") >= lines


@pytest.mark.parametrize(
    ("mode", "tolerance", "moments"),
    [("redo", 0.0, ("sampling", "updating", "saving", "sampling again")), ("continue", 1e-5, ("sampling",))],
)
def test_kill_9_anywhere_ends_where_the_whole_run_ends(
    recipe: Path, two_ranks: Path, mode: str, tolerance: float, moments: tuple[str, ...]
) -> None:
    """Two processes; what they have sampled so far is continued by one. Only where rollouts are missing does it matter
    what is done about them."""
    name, uninterrupted = f"killed-{mode}", two_ranks / "whole" / "rl"
    arguments = ("rl", recipe, f"run.name={name}", f"rl.resume_rollouts={mode}", *THREE_STEPS)
    stage = recipe.parent / "runs" / name / "rl"
    happened = {
        "sampling": sampling(stage, 1, 3),
        "updating": lambda: (stage / "rollouts" / "step-000002.jsonl.zst").exists(),
        "saving": lambda: any(stage.glob(".checkpoint-2.partial/*")) or (stage / "checkpoint-2").exists(),
        "sampling again": sampling(stage, 3, 1),
    }
    for moment in moments:
        started = curiosft(*arguments, "launch.processes=2")
        started.wait_for(happened[moment])
        os.kill(started.process.pid, signal.SIGKILL)
        started.wait_until_gone()
    done = curiosft(*arguments, f"launch.processes={2 if mode == 'redo' else 1}").wait_done()
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_weights(uninterrupted / "checkpoint-3", stage / "checkpoint-3", tolerance)
    for step in (1, 2, 3):
        first, second = (drawn(folder, step) for folder in (uninterrupted, stage))
        assert first == second
    assert not list((stage / "rollouts").glob("*.rank-*"))


def drawn(stage: Path, step: int) -> list[tuple[Any, ...]]:
    rows = read_jsonl(stage / "rollouts" / f"step-{step:06d}.jsonl.zst")
    return [(row["group"], row["sample"], row["token_ids"]) for row in rows]


def assert_same_weights(one: Path, other: Path, tolerance: float) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all((first[name] - second[name]).abs().max() <= tolerance for name in first)


@pytest.mark.parametrize(("ending", "code"), [("failure", 4), ("interrupt", 130), ("terminate", 75), ("kill", -9)])
def test_nothing_survives(recipe: Path, ending: str, code: int) -> None:
    """Success is the end of `test_processes_of_one_node_or_two_equal_one`."""
    engine = "rl.engine=auto" if ending == "kill" else "rl.engine=transformers"
    endless = ["rl.steps=500", "rl.guards.reward_min_action=off"]
    more = ["rl.steps=1", "rl.handover_tolerance=1e-30"] if ending == "failure" else endless
    started = curiosft("rl", recipe, f"run.name={ending}", engine, "rl.kv_cache_gib=0.1", *more)
    stage = recipe.parent / "runs" / ending / "rl"
    if ending != "failure":
        started.wait_for(sampling(stage, 2, 1))
        assert len(started.alive()) >= 3, "launcher, trainer and grader"
        number = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "kill": signal.SIGKILL}[ending]
        os.kill(started.process.pid, number)
    done = started.wait_done()
    assert done.returncode == code, done.stderr[-2000:]
    started.wait_until_gone()


@pytest.mark.parametrize("nodes", [1, 2])
def test_processes_of_one_node_or_two_equal_one(recipe: Path, nodes: int) -> None:
    """Two processes on one node; four on two, both of them this machine, with a copy of the model on each."""
    settings, name = ("rl.steps=1", ROUGH), f"nodes{nodes}"
    [first], one = train(recipe, f"{name}-one", *settings)
    if nodes == 1:
        commands = [curiosft("rl", recipe, f"run.name={name}", "launch.processes=2", *settings)]
    else:
        port = str(free_port())
        world = ("--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "2")
        place = ("--num_processes", "4", "--main_process_ip", "127.0.0.1", "--main_process_port", port)
        given = ("rl", recipe, f"run.name={name}", "launch.shard=hybrid", *settings, "--", *world, *place)
        commands = [curiosft(*given, "--machine_rank", rank) for rank in ("0", "1")]
    for started in commands:
        done = started.wait_done()
        assert done.returncode == 0, done.stderr[-3000:]
        started.wait_until_gone()
    two = recipe.parent / "runs" / name / "rl"
    [second] = read_jsonl(two / "metrics.jsonl")
    assert drawn(one, 1) == drawn(two, 1)
    for name in ("train/grad_norm", "reward/mean", "train/loss_nats", "train/entropy_nats", "train/kept_mass"):
        assert first[name] == pytest.approx(second[name], rel=1e-3, abs=1e-6)
    assert_same_weights(one / "checkpoint-1", two / "checkpoint-1", 1e-6)
    with pytest.raises(AssertionError):
        assert_same_weights(recipe.parent / "model", two / "checkpoint-1", 1e-4)


def test_two_processes_with_a_part_of_the_model_sample_with_an_engine_each(recipe: Path) -> None:
    """vLLM inside each of them; in float32 its log-probabilities of the second step are those of new weights."""
    pytest.importorskip("vllm")
    started = curiosft(
        "rl", recipe, "run.name=engines", "rl.engine=vllm", "rl.kv_cache_gib=0.1", "launch.processes=2", ROUGH
    )
    done = started.wait_done()
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the model in 2 parts" in done.stdout + done.stderr
    stage = recipe.parent / "runs" / "engines" / "rl"
    rows = list(read_jsonl(stage / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["train/mismatch_nats_max"] < 1e-3 and row["train/grad_norm"] > 0 for row in rows)
    for step in (1, 2):
        saved = list(read_jsonl(stage / "rollouts" / f"step-{step:06d}.jsonl.zst"))
        assert len(saved) == 16 and {row["weights_version"] for row in saved} == {step - 1}
    started.wait_until_gone()
