"""A checkpoint opens anywhere, carries no code, and continues bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.files import is_complete
from curiosft_cli.run.sections import Sft
from curiosft_cli.run.sections import Teacher as TeacherSettings
from curiosft_cli.train.batches import make_pack
from curiosft_cli.train.checkpoint import load_state, save_checkpoint
from curiosft_cli.train.encode import Row
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
    return Trainer(
        student,
        make_optimizer(model, Sft(learning_rate=1e-2)),
        Teacher(model, settings, chunk=8, compute_dtype=torch.float32),
    )


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
        state.teacher.update(step + 1, state.student.model)


def save(state: Trainer, target: Path, tiny_model: Path) -> None:
    save_checkpoint(
        target,
        accelerator=Accelerator(cpu=True),
        model=state.student.model,
        tokenizer=AutoTokenizer.from_pretrained(tiny_model),
        optimizer=state.optimizer,
        teacher=state.teacher.model,
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
    counters = load_state(
        tmp_path / "checkpoint-3",
        accelerator=Accelerator(cpu=True),
        optimizer=second.optimizer,
        teacher=second.teacher.model,
    )
    assert counters["step"] == 3
    train(second, range(3, 6))
    for ours, theirs in ((whole.student, second.student), (whole.teacher.model, second.teacher.model)):
        for expected, got in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(expected, got)


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


def test_another_number_of_processes_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = trainer(tiny_model)
    save(state, tmp_path / "checkpoint-3", tiny_model)
    two = Accelerator(cpu=True)
    monkeypatch.setattr(type(two), "num_processes", 2)
    with pytest.raises(CurioError, match="written by 1 processes, now there are 2"):
        load_state(tmp_path / "checkpoint-3", accelerator=two, optimizer=state.optimizer, teacher=None)


def test_a_full_disk_stops_before_anything_is_written(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CurioError, match="GiB free") as caught:
        save(trainer(tiny_model), tmp_path / "checkpoint-3", tiny_model)
    assert caught.value.exit_code == GUARD
    assert list(tmp_path.iterdir()) == []
