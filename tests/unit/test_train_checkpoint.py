"""A checkpoint opens anywhere, carries no code, and continues bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from command import largest_file
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.files import is_complete
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Model, Sft, TeacherSettings
from curiosft_cli.train import checkpoint
from curiosft_cli.train.batches import make_pack
from curiosft_cli.train.checkpoint import full_weights, load_state, save_checkpoint
from curiosft_cli.train.encode import Row, end_token_id
from curiosft_cli.train.load import load_tokenizer
from curiosft_cli.train.optim import make_optimizer
from curiosft_cli.train.student import Student
from curiosft_cli.train.teacher import Teacher


class Trainer(NamedTuple):
    student: Student
    optimizer: torch.optim.Optimizer
    teacher: Teacher


def trainer(path: Path) -> Trainer:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    student = Student(model, chunk=8, compute_dtype=torch.float32)
    settings = TeacherSettings(sync_every=2, student_weight=0.5, topk=64)
    return Trainer(student, make_optimizer(model, Sft(learning_rate=1e-2)), Teacher(student, settings))


def train(state: Trainer, steps: range) -> None:
    objective = SFT_OBJECTIVES["curio"].bind()
    for step in steps:
        # The data of a step comes from the global generator, so a lost random state would show.
        rows = [Row((5, 6, 7), tuple(torch.randint(3, 500, (6,)).tolist())) for _ in range(3)]
        pack = make_pack(rows, range(3), "cpu")
        weights = torch.full((len(pack.labels),), 1 / len(pack.labels))
        extra = {"teacher_logp": state.teacher.logp(pack).logp}
        state.student(pack, objective, extra, weights)[0].backward()
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.teacher.update(step + 1)


def save(state: Trainer, target: Path, tiny_model: Path) -> None:
    save_checkpoint(
        target,
        accelerator=Accelerator(cpu=True),
        model=state.student.model,
        tokenizer=load_tokenizer(str(tiny_model), Model()),
        optimizer=state.optimizer,
        tensors=state.teacher.state(3),
        counters={"step": 3},
    )


def test_3_and_3_steps_equal_6_bit_for_bit(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = trainer(tiny_model)
    train(whole, range(6))

    torch.manual_seed(1)
    first = trainer(tiny_model)
    train(first, range(3))
    save(first, tmp_path / "checkpoint-3", tiny_model)

    torch.manual_seed(999)
    second = trainer(tmp_path / "checkpoint-3")
    counters, tensors = load_state(
        tmp_path / "checkpoint-3", accelerator=Accelerator(cpu=True), optimizer=second.optimizer
    )
    second.teacher.load(tensors)
    assert counters["step"] == 3
    train(second, range(3, 6))
    for expected, got in zip(whole.student.parameters(), second.student.parameters(), strict=True):
        assert torch.equal(expected, got)
    for name, expected in whole.teacher.weights.items():
        assert torch.equal(expected, second.teacher.weights[name])


def test_it_opens_in_transformers_with_equal_weights_and_holds_no_pickle(tiny_model: Path, tmp_path: Path) -> None:
    state = trainer(tiny_model)
    train(state, range(1))
    target = tmp_path / "checkpoint-1"
    save(state, target, tiny_model)
    assert is_complete(target)
    opened = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    for expected, got in zip(state.student.model.parameters(), opened.parameters(), strict=True):
        assert torch.equal(expected, got)
    assert opened.generation_config.eos_token_id
    suffixes = {file.suffix for file in target.rglob("*") if file.is_file()}
    assert suffixes <= {".safetensors", ".json", ".jinja", ""}


def test_a_full_disk_stops_before_anything_is_written(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CurioError, match="GiB free") as caught:
        save(trainer(tiny_model), tmp_path / "checkpoint-3", tiny_model)
    assert caught.value.exit_code == GUARD
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [1_000, 100_000])
def test_a_disk_that_fills_while_the_files_are_written_leaves_no_checkpoint(
    tiny_model: Path, tmp_path: Path, limit: int
) -> None:
    """As under a quota, which the look before the start does not see."""
    state = trainer(tiny_model)
    train(state, range(1))
    with largest_file(limit), pytest.raises(CurioError, match="checkpoint-3: the disk is full") as caught:
        save(state, tmp_path / "checkpoint-3", tiny_model)
    assert caught.value.exit_code == GUARD
    assert list(tmp_path.iterdir()) == []


def test_room_is_asked_for_what_a_checkpoint_holds(tiny_model: Path, tmp_path: Path) -> None:
    """Weights, two moments of those that are trained, and the inputs: the estimate before the first step is the size."""
    state, asked = trainer(tiny_model), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "check_disk", lambda _, needed: asked.append(needed))
        checkpoint.check_room(tmp_path, state.student.model, state.teacher.state(0))
        train(state, range(1))
        save(state, tmp_path / "checkpoint-3", tiny_model)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert asked == [pytest.approx(size, rel=0.05)] * 2


def test_it_stops_at_the_token_that_training_taught(tiny_model: Path, tmp_path: Path) -> None:
    """A base model lists its document end only, with sampling settings that transformers refuses to write."""
    state = trainer(tiny_model)
    settings = GenerationConfig(eos_token_id=0)
    settings.do_sample, settings.temperature = False, 0.6
    state.student.model.generation_config = settings
    save(state, tmp_path / "checkpoint-3", tiny_model)
    tokenizer = load_tokenizer(str(tiny_model), Model())
    saved = GenerationConfig.from_pretrained(tmp_path / "checkpoint-3")
    assert {0, end_token_id(tokenizer)} <= set(saved.eos_token_id)
    assert state.student.model.generation_config is settings


def test_a_tied_head_is_saved_once(tiny_model: Path, tmp_path: Path) -> None:
    state = trainer(tiny_model)
    weights = full_weights(state.student.model)
    assert weights["lm_head.weight"] is weights["model.embed_tokens.weight"]
    save(state, tmp_path / "checkpoint-3", tiny_model)
    assert "lm_head.weight" not in load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    assert full_weights(state.student.model, keep=False) == {}


def test_a_save_that_dies_leaves_no_checkpoint(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = trainer(tiny_model)
    save(state, tmp_path / "checkpoint-3", tiny_model)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(state.student.model), "save_pretrained", die)
    with pytest.raises(KeyboardInterrupt):
        save(state, tmp_path / "checkpoint-6", tiny_model)
    assert StageDir(tmp_path).checkpoints() == [3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint-3"]
