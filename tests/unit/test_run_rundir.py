"""The run folder: references, pruning, and refusing to mix settings."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from curiosft_cli.run.config import from_json, load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import folder_in_one_step, write_json
from curiosft_cli.run.resume_policy import STAGE_KEYS, keys_with
from curiosft_cli.run.rundir import TRAINER_STATE, RunDir, StageDir, begin, resolve_checkpoint
from curiosft_cli.run.sections import Config, Rl, Sft, Training
from curiosft_cli.run.sections.base import RESUME_FREE


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load("curio", [f"run.root={tmp_path}", "model.path=base-model"]).config


def make_checkpoint(stage: StageDir, step: int, score: float | None = None) -> None:
    with folder_in_one_step(stage.checkpoint(step)) as folder:
        (folder / "state").mkdir()
        (folder / "model.safetensors").touch()
        write_json(folder / TRAINER_STATE, {"global_step": step, "score": score})


def test_references(config: Config, tmp_path: Path) -> None:
    stage = RunDir(tmp_path / "curio").stage("sft")
    other = RunDir(tmp_path / "other").stage("rl")
    for step in (2, 10):
        make_checkpoint(stage, step)
    make_checkpoint(other, 7)
    assert resolve_checkpoint("base", config) == "base-model"
    assert resolve_checkpoint("sft", config) == str(stage.checkpoint(10))  # by number, not by name
    assert resolve_checkpoint("sft@2", config) == str(stage.checkpoint(2))
    assert resolve_checkpoint("other:rl", config) == str(other.checkpoint(7))
    assert resolve_checkpoint("Qwen/Qwen3-4B-Base", config) == "Qwen/Qwen3-4B-Base"


def test_an_incomplete_checkpoint_is_invisible(config: Config, tmp_path: Path) -> None:
    stage = RunDir(tmp_path / "curio").stage("sft")
    (stage.checkpoint(5)).mkdir(parents=True)
    assert stage.checkpoints() == []
    with pytest.raises(CurioError, match="no complete checkpoint"):
        resolve_checkpoint("sft", config)
    make_checkpoint(stage, 2)
    with pytest.raises(CurioError, match="Complete steps: 2"):
        resolve_checkpoint("sft@5", config)


def test_pruning_keeps_the_newest_and_drops_old_resume_state(tmp_path: Path) -> None:
    stage = StageDir(tmp_path)
    for step in (1, 2, 3):
        make_checkpoint(stage, step)
    stage.prune(keep_last=2)
    assert stage.checkpoints() == [2, 3]
    assert not (stage.checkpoint(2) / "state").exists()
    assert (stage.checkpoint(3) / "state").exists()


def test_the_best_checkpoint_is_found_and_stays(config: Config, tmp_path: Path) -> None:
    stage = RunDir(tmp_path / "curio").stage("sft")
    make_checkpoint(stage, 1)
    with pytest.raises(CurioError, match=r"none of .* was evaluated.*sft\.eval_benchmarks, or name a step: 1"):
        resolve_checkpoint("sft@best", config)
    for step, score in ((2, 20.0), (4, 35.0), (6, 35.0), (8, 0.0), (9, None)):
        make_checkpoint(stage, step, score)
    stage.prune(keep_last=2)
    assert stage.checkpoints() == [4, 8, 9]  # the first of equals
    assert resolve_checkpoint("sft@best", config) == str(stage.checkpoint(4))
    assert not (stage.checkpoint(4) / "state").exists()
    stage.prune(keep_last=1, keep_every=8)
    assert stage.checkpoints() == [4, 8, 9]


def test_a_run_that_failed_at_the_start_takes_mended_settings(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "curio")
    stage, _ = begin(run, "sft", load("curio", ["data.train=['missing.jsonl']"]).config)
    stage.set_status("failed", error="missing.jsonl does not exist", exit_code=2)
    mended = load("curio", ["data.train=['there.jsonl']"]).config
    stage, complete = begin(run, "sft", mended)
    assert not complete
    assert from_json(stage.config_file) == mended


def test_a_stage_refuses_other_settings_and_starts_over_when_told(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "curio")
    first = load("curio").config
    stage, complete = begin(run, "sft", first)
    assert not complete
    make_checkpoint(stage, 1)
    stage.set_status("complete")
    assert begin(run, "sft", first)[1]
    assert begin(run, "sft", load("curio", ["rl.steps=9"]).config)[1]  # not this stage's business
    with pytest.raises(CurioError, match=r"sft\.epochs: 3 -> 4"):
        begin(run, "sft", load("curio", ["sft.epochs=4"]).config)
    _, complete = begin(run, "sft", load("curio", ["sft.epochs=4"]).config, fresh=True)
    assert not complete


def test_scores_between_steps_are_all_of_the_same_kind(tmp_path: Path) -> None:
    """A training refuses another way of sampling its benchmarks, and takes one that none of its scores depends on."""

    def config(*changes: str) -> Config:
        return load("curio", [f"run.root={tmp_path}", "model.path=base-model", *changes]).config

    curve = "sft.eval_benchmarks=['arithmetic']"
    for name, before in {"with": [curve], "without": []}.items():
        stage, _ = begin(RunDir(tmp_path / name), "sft", config(*before))
        make_checkpoint(stage, 1)
    begin(RunDir(tmp_path / "without"), "sft", config("eval.temperature=0.9"))
    begin(RunDir(tmp_path / "with"), "sft", config(curve, "eval.samples=2", "eval.grader_workers=1"))
    for change in ("eval.temperature=0.9", "eval.grader=official"):
        with pytest.raises(CurioError, match=change.split("=")[0]):
            begin(RunDir(tmp_path / "with"), "sft", config(curve, change))
    RunDir(tmp_path / "with").stage("sft").set_status("complete")
    assert begin(RunDir(tmp_path / "with"), "sft", config(curve, "eval.temperature=0.9"))[1]  # no look is left


def test_every_key_that_is_compared_exists(config: Config) -> None:
    for key in chain.from_iterable(STAGE_KEYS.values()):
        value: object = config
        for name in key.split("."):
            assert hasattr(value, name), key
            value = getattr(value, name)


@pytest.mark.parametrize("stage", [Sft, Rl])
def test_a_stage_with_its_own_default_keeps_the_policy_of_the_key(stage: type[Training]) -> None:
    shared = set(keys_with(RESUME_FREE, Training))
    assert shared == set(keys_with(RESUME_FREE, stage)) & Training.model_fields.keys()
    assert "save_steps" in shared and "guards" in shared
