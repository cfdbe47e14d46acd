"""Every supervised recipe on a tiny real model, with one process and with two that hold a part of it each."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from command import curiosft_in_a_process, last_of_each
from ranks import train as train_here
from ranks import train_on
from safetensors.torch import load_file
from tiny import build_tiny_model

from curiosft_cli.run.config import load, recipe_names
from curiosft_cli.run.errors import GUARD, MISSING, CurioError
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.tools.pipeline import run_stages
from curiosft_cli.train.loop import Loop

SUPERVISED = [name for name in recipe_names() if tuple(load(name).config.run.stages) == ("sft", "eval")]
SMALL = (
    "model.system_prompt=''",
    "data.train=arithmetic:train:24",
    "data.validation=arithmetic:test:6",
    "sft.precision=float32",
    "sft.max_response_length=256",
    "sft.batch_size=6",
    "sft.max_steps=2",
    "sft.max_tokens_per_batch=768",
    "sft.learning_rate=3e-3",
    # With Adam's own, the rounding of tiny gradients becomes steps of up to the learning rate.
    "sft.adam_epsilon=1e-4",
    "sft.warmup_steps=1",
    "sft.eval_steps=2",
    "sft.head_chunk=64",
    "launch.threads=1",
)
TEACHER = ("sft.teacher.topk=64", "sft.teacher.sync_every=1")

pytestmark = pytest.mark.e2e


def small(recipe: str) -> tuple[str, ...]:
    return (*SMALL, *(TEACHER if recipe.startswith("curio") else ()))


def sft(recipe: str, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Through the command line, in processes of its own."""
    return curiosft_in_a_process("sft", recipe, *last_of_each(*small(recipe), *more), check=check, limit_s=400)


def settings(recipe: str, model: Path, root: Path, *more: str) -> list[str]:
    """Those of a run in this process."""
    own = (f"model.path={model}", f"run.root={root}", "launch.processes=0")
    return last_of_each(*small(recipe), *own, *more)


def train(recipe: str, model: Path, root: Path, *more: str) -> Path:
    """In this process; returns the stage's folder."""
    resolved = load(recipe, settings(recipe, model, root, *more))
    run_stages(resolved, ("sft",))
    return root / resolved.config.run.name / "sft"


def assert_same_weights(one: Path, other: Path, tolerance: float = 1e-6) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=tolerance, rtol=0)


def metrics(stage: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]


EVERY_STEP = {
    *("train/loss_nats", "train/mean_token_accuracy", "train/mean_token_probability", "train/grad_norm"),
    *("train/entropy_nats", "train/entropy_top20_nats", "train/entropy_bottom80_nats", "train/learning_rate"),
    *("train/skipped_steps", "data/pack_fill", "data/truncated_rows", "memory/peak_gib", "tokens/s", "time/step_s"),
    *("time/data_s", "time/inputs_s", "time/student_s", "time/optimizer_s", "time/sync_s"),
}
OF_THE_TEACHER = {
    *("train/tau_q10", "train/tau_q50", "train/tau_q90", "train/delta_nats_q10", "train/delta_nats_q90"),
    *("train/tau_at_min", "train/tau_at_max", "train/tau_guarded", "train/teacher_entropy_top_nats", "time/search_s"),
    "train/gap_nats",
}
OF_THE_WEIGHT = {
    *("train/token_weight", "train/token_weight_min", "train/token_weight_max"),
    "train/token_weight_negative",
}


UNTIED = "untied"
OTHERS = {
    "untied": ("curio", UNTIED),
    "untied-kl": ("sft-kl", UNTIED),
    "untied-distribution": ("curio-distribution", UNTIED),
    "adapters": ("curio", "sft.lora.rank=4"),
    "recomputed": ("curio", "sft.gradient_checkpointing=true"),
    "offloaded": ("curio", "launch.offload=true", "sft.teacher.offload=true"),
    "per-node": ("curio", "launch.shard=hybrid"),
    "compiled": ("curio", "sft.compile=true"),
    # The teacher is in bfloat16 then, and its pass must not disturb the student's gradients.
    "whole-copies": ("curio", "launch.shard=none", "sft.precision=bfloat16"),
}
"""What else must not depend on the number of processes."""
CASES = {recipe: (recipe,) for recipe in SUPERVISED} | OTHERS


IN_BFLOAT16 = ("curio", "sft", "sft-kl")
"""What trains with shards and bfloat16 products, which are rounded differently in each process."""


def case(name: str, tied: Path, untied: Path, root: Path) -> tuple[str, list[str]]:
    recipe, *more = CASES[name]
    model = untied if UNTIED in more else tied
    return recipe, settings(recipe, model, root, f"run.name={name}", *(one for one in more if one != UNTIED))


@pytest.fixture(scope="module")
def untied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("untied"), tied=False)


@pytest.fixture(scope="module")
def two_ranks(tiny_model: Path, untied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all these runs, trained by two processes."""
    root = tmp_path_factory.mktemp("two-ranks")
    cases = [case(name, tiny_model, untied_model, root) for name in CASES]
    cases += [
        (name, settings(name, tiny_model, root, "sft.precision=bfloat16", f"run.name=bfloat16-{name}"))
        for name in IN_BFLOAT16
    ]
    cases += [(recipe, [*given, "until=2"]) for recipe, given in long_runs(tiny_model, root)]
    train_on(2, [("sft", recipe, *given) for recipe, given in cases])
    return root


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_does_and_report(
    name: str, tiny_model: Path, untied_model: Path, two_ranks: Path, tmp_path: Path
) -> None:
    recipe, given = case(name, tiny_model, untied_model, tmp_path)
    # One process is the plain one, also beside compiled ones.
    run_stages(load(recipe, last_of_each(*given, "sft.compile=false")), ("sft",))
    stage = tmp_path / name / "sft"
    rows = metrics(stage)
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert all(value is None or math.isfinite(value) for value in row.values())
        assert row["train/entropy_top20_nats"] > row["train/entropy_nats"] > row["train/entropy_bottom80_nats"] > 0
        assert 0 <= row["train/mean_token_accuracy"] <= 1
        wanted = EVERY_STEP | (OF_THE_TEACHER if recipe.startswith("curio") else set())
        wanted |= OF_THE_WEIGHT if recipe.startswith("curio") and recipe != "curio-distribution" else set()
        assert wanted <= set(row)
    assert 0 < rows[-1]["eval/loss_nats"] < 6.2  # ln 512 = 6.24, a guess among all tokens
    assert 0 < rows[-1]["eval/entropy_nats"] < 6.24
    assert (stage / "checkpoint-2" / "COMPLETE").exists()
    other = two_ranks / name / "sft"
    assert_same_weights(stage / "checkpoint-2", other / "checkpoint-2")
    for one, two in zip(rows, metrics(other), strict=True):
        assert one["train/grad_norm"] == pytest.approx(two["train/grad_norm"], rel=1e-4)


@pytest.mark.parametrize("recipe", IN_BFLOAT16)
def test_bfloat16_products_of_two_processes_move_the_weights_as_those_of_one(
    recipe: str, tiny_model: Path, two_ranks: Path, tmp_path: Path
) -> None:
    """Each process rounds the gradient of its own rows: the way that the weights go differs by 0.4 to 0.9 %."""
    one = train(recipe, tiny_model, tmp_path, "sft.precision=bfloat16") / "checkpoint-2"
    two = two_ranks / f"bfloat16-{recipe}" / "sft" / "checkpoint-2"
    start, first, second = (load_file(folder / "model.safetensors") for folder in (tiny_model, one, two))
    way = torch.cat([(first[name] - start[name]).flatten() for name in first])
    apart = torch.cat([(first[name] - second[name]).flatten() for name in first])
    assert 0 < apart.norm() < 0.02 * way.norm()


LONG = {"curio": (), "psft": ("sft.params.psft_old_refresh=6",)}
"""Six steps. What psft scores before the first one, all of them read."""


def long_runs(model: Path, root: Path) -> list[tuple[str, list[str]]]:
    long = ("sft.max_steps=6", "sft.save_steps=2", "sft.keep_last=3")
    return [(name, settings(name, model, root, *long, *more, f"run.name=long-{name}")) for name, more in LONG.items()]


def test_another_number_of_processes_continues(tiny_model: Path, two_ranks: Path, tmp_path: Path) -> None:
    """Two steps with two processes, two with one, two with two; and the same in one go."""
    for recipe, given in long_runs(tiny_model, two_ranks):
        train_here("sft", recipe, *given, "until=2")
        assert StageDir(two_ranks / f"long-{recipe}" / "sft").checkpoints() == [2, 4]
    train_on(2, [("sft", recipe, *given) for recipe, given in long_runs(tiny_model, two_ranks)])
    for recipe, given in long_runs(tiny_model, tmp_path):
        run_stages(load(recipe, given), ("sft",))
        one, two = (root / f"long-{recipe}" / "sft" for root in (tmp_path, two_ranks))
        assert_same_weights(one / "checkpoint-6", two / "checkpoint-6")
        assert len(metrics(two)) == 6


# What looks at the whole step; what keeps something between steps, both kinds at once.
WHOLE_STEP = ("sft-entropy-top20", "sft.params.denominator=selected")
STATEFUL = ("psft", "sft.params.psft_old_refresh=3", "sft.lora.rank=4")


# Three questions of two samples over two ranks, at the last step.
LOOK = (
    *("sft.eval_benchmarks=arithmetic", "sft.eval_samples=2", "sft.eval_limit=3", "sft.engine=transformers"),
    *("eval.max_completion_length=8", "eval.grader_workers=1"),
)


def test_two_processes_of_the_command_equal_one(tiny_model: Path, tmp_path: Path) -> None:
    # The third step is the last of an epoch and takes what is left, three rows.
    short = ("sft.max_steps=3", "data.train=arithmetic:train:15", "data.validation=arithmetic:test:5", *LOOK)
    one = train(WHOLE_STEP[0], tiny_model, tmp_path, *WHOLE_STEP[1:], *short, "run.name=one")
    own = (f"model.path={tiny_model}", f"run.root={tmp_path}", "run.name=two", "launch.processes=2")
    done = sft(*WHOLE_STEP, *short, *own)
    assert "the model in 2 parts" in done.stdout + done.stderr
    two = tmp_path / "two" / "sft"
    assert_same_weights(one / "checkpoint-3", two / "checkpoint-3")
    for first, second in zip(metrics(one), metrics(two), strict=True):
        looked = ("eval/loss_nats", "eval/avg", "eval/arithmetic/tokens_mean", "eval/arithmetic/entropy_nats")
        for key in ("train/loss_nats", "train/entropy_top20_nats", "train/grad_norm", *looked):
            assert (key in first) == (key in second)
            assert first.get(key, 0.0) == pytest.approx(second.get(key, 0.0), rel=1e-4)


def test_four_processes_of_the_command_equal_one(tiny_model: Path, tmp_path: Path) -> None:
    one = train("curio", tiny_model, tmp_path, "run.name=one")
    done = sft("curio", f"model.path={tiny_model}", f"run.root={tmp_path}", "run.name=four", "launch.processes=4")
    assert "the model in 4 parts" in done.stdout + done.stderr
    assert_same_weights(one / "checkpoint-2", tmp_path / "four" / "sft" / "checkpoint-2")


def test_two_killed_processes_are_proved_to_resume(tiny_model: Path, tmp_path: Path) -> None:
    own = (f"model.path={tiny_model}", f"run.root={tmp_path}", "launch.processes=2")
    done = sft(*STATEFUL, *own, "--prove-resume")
    assert done.stdout.splitlines()[-1] == "equal"
    assert not list(tmp_path.iterdir())


def test_a_plugin_of_accelerate_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "accelerate.yaml"
    file.write_text("distributed_type: FSDP\nnum_processes: 1\nfsdp_config: {fsdp_version: 2}\n")
    given = (f"model.path={tiny_model}", f"run.root={tmp_path}", "--", "--config_file", str(file))
    done = sft("sft", *given, check=False)
    assert done.returncode == 2
    assert "FSDP plugin" in done.stderr and "launch.shard" in done.stderr and "Traceback" not in done.stderr


def test_a_guard_that_stops_leaves_a_checkpoint_and_exit_code_4(tiny_model: Path, tmp_path: Path) -> None:
    done = sft(
        *("sft", f"model.path={tiny_model}", f"run.root={tmp_path}", "sft.guards.action=stop"),
        *("sft.guards.patience=2", "sft.guards.entropy_max_nats=0.01"),
        check=False,
    )
    assert done.returncode == 4
    assert "the entropy explodes" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "sft" / "sft" / "checkpoint-2" / "COMPLETE").exists()


def test_a_tracker_that_is_not_installed_is_named(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(CurioError, match="wandb") as refused:
        train("sft", tiny_model, tmp_path, "run.name=other", "log.trackers=wandb")
    assert refused.value.exit_code == MISSING


def test_bad_rows_are_listed_where_they_stood(tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    good = {"problem": "What is 1+1?", "solution": "2 \\boxed{2}", "answer": "2"}
    rows = [good] * 6 + [{"problem": "What?", "answer": "1"}, {"solution": "lost"}, {**good, "problem": "x" * 3000}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = r"rows\.jsonl, row 7: found the columns answer, problem, expected the expert's response.*on_bad_row=skip"
    with pytest.raises(CurioError, match=found):
        train("sft", tiny_model, tmp_path, f"data.train={data}")
    stage = train("sft", tiny_model, tmp_path, f"data.train={data}", "data.on_bad_row=skip")
    listed = json.loads((stage / "skipped-train.json").read_text())
    assert [len(rows) for rows in listed.values()] == [1, 1, 1]
    assert "row 8" in listed["cannot be read"][0] and "row 7" in listed["lack a response"][0]


def test_no_room_for_a_checkpoint_stops_before_the_first_step_and_before_a_save(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, looks = shutil.disk_usage(tmp_path), iter(range(9))
    full_from = 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0 if next(looks) >= full_from else 2**40))
    with pytest.raises(CurioError, match="a checkpoint needs") as refused:
        train("sft", tiny_model, tmp_path, "sft.save_steps=1")
    assert refused.value.exit_code == GUARD
    assert not (tmp_path / "sft" / "sft" / "metrics.jsonl").exists()
    looks, full_from = iter(range(9)), 2
    with pytest.raises(CurioError, match="continues from the last checkpoint") as refused:
        train("sft", tiny_model, tmp_path, "sft.save_steps=1")
    assert refused.value.exit_code == GUARD
    assert [entry.name for entry in (tmp_path / "sft" / "sft").glob("*checkpoint*")] == ["checkpoint-1"]


def test_gradients_that_are_not_finite_are_counted_and_stop_in_a_row(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = iter([True, False, True, True])
    real = Loop.accumulate

    def accumulate(loop: Loop, *arguments: Any, last: bool, **more: Any) -> Any:
        seen = real(loop, *arguments, last=last, **more)
        if last and next(spoiled):
            weight = next(loop.student.parameters())
            weight.grad = torch.full_like(weight, math.nan)
        return seen

    monkeypatch.setattr(Loop, "accumulate", accumulate)
    with pytest.raises(CurioError, match="in 2 steps in a row") as stopped:
        train("sft", tiny_model, tmp_path, "sft.max_steps=6", "sft.save_steps=2", "sft.max_skipped_steps=2")
    assert stopped.value.exit_code == GUARD
    rows = metrics(tmp_path / "sft" / "sft")
    assert [row["train/skipped_steps"] for row in rows] == [1, 1, 2]
    assert [row["train/grad_norm"] is None for row in rows] == [True, False, True]
    assert (tmp_path / "sft" / "sft" / "checkpoint-2" / "COMPLETE").exists()
