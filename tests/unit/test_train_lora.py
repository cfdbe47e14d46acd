"""Adapters: only they train, the checkpoint is a plain model, the teacher shares the base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.sections import Lora, TeacherSettings
from curiosft_cli.train.batches import make_pack
from curiosft_cli.train.encode import Row
from curiosft_cli.train.lora import add_adapters, trained
from curiosft_cli.train.shards import full_weights
from curiosft_cli.train.student import Student
from curiosft_cli.train.teacher import Teacher

PACK_ROWS = [Row((5, 6, 7), (8, 9, 10)), Row((10,), (11, 12))]


def adapted(path: Path, **settings: object) -> Student:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    add_adapters(model, Lora.model_validate({"rank": 3, "alpha": 6.0, **settings}), seed=1)
    return Student(model, chunk=4, compute_dtype=torch.float32)


def moved(student: Student) -> None:
    with torch.no_grad():
        for weight in trained(student.model).values():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))


def test_only_adapters_train_and_they_change_nothing_at_the_start(tiny_model: Path) -> None:
    student = adapted(tiny_model)
    assert trained(student.model) and all(".lora_" in name for name in trained(student.model))
    plain = Student(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), chunk=4, compute_dtype=torch.float32
    )
    pack = make_pack(PACK_ROWS, [0, 1], "cpu")
    torch.testing.assert_close(student.scored(pack).logp, plain.scored(pack).logp)


def test_the_merged_checkpoint_is_a_plain_model_with_the_same_answers(tiny_model: Path) -> None:
    student = adapted(tiny_model)
    moved(student)
    pack = make_pack(PACK_ROWS, [0, 1], "cpu")
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    before = Student(plain, chunk=4, compute_dtype=torch.float32).scored(pack).logp
    names = set(plain.state_dict())
    merged = full_weights(student.model)
    assert set(merged) == names
    plain.load_state_dict(merged)
    after = Student(plain, chunk=4, compute_dtype=torch.float32).scored(pack).logp
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, student.scored(pack).logp, atol=1e-5, rtol=1e-5)


def test_the_teacher_is_a_copy_of_the_adapters_alone(tiny_model: Path) -> None:
    student = adapted(tiny_model)
    teacher = Teacher(student, TeacherSettings(topk=64, sync_every=1, student_weight=0.5))
    assert teacher.weights.keys() == trained(student.model).keys()
    pack = make_pack(PACK_ROWS, [0, 1], "cpu")
    before = teacher.logp(pack).logp
    moved(student)
    assert torch.equal(teacher.logp(pack).logp, before)
    assert teacher.update(1)
    assert not torch.equal(teacher.logp(pack).logp, before)


def test_targets_that_fit_no_layer_name_the_layers(tiny_model: Path) -> None:
    with pytest.raises(CurioError, match=r"q_prj.*q_proj"):
        adapted(tiny_model, targets=("q_prj",))


@pytest.mark.parametrize(("dtype", "offload"), [("float32", True), ("bfloat16", False), ("bfloat16", True)])
def test_a_teacher_kept_elsewhere_leaves_the_student_as_it_was(tiny_model: Path, dtype: str, offload: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    student = Student(model, chunk=4, compute_dtype=torch.float32)
    pack = make_pack(PACK_ROWS, [0, 1], "cpu")
    whole = Teacher(student, TeacherSettings(topk=64))
    teacher = Teacher(student, TeacherSettings.model_validate({"topk": 64, "dtype": dtype, "offload": offload}))
    before = {name: weight.clone() for name, weight in student.model.named_parameters()}
    answer = teacher.logp(pack).logp
    atol = 1e-6 if dtype == "float32" else 0.2
    torch.testing.assert_close(answer.float(), whole.logp(pack).logp, atol=atol, rtol=0)
    for name, weight in student.model.named_parameters():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, before[name])


def test_a_small_student_weight_refuses_a_bfloat16_teacher(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    student = Student(model, chunk=4, compute_dtype=torch.bfloat16)
    with pytest.raises(CurioError, match=r"student_weight = 0\.01 would not move"):
        Teacher(student, TeacherSettings(student_weight=0.01, dtype="bfloat16"))
    # Left to itself the teacher then is float32, whatever the products are.
    assert next(iter(Teacher(student, TeacherSettings(student_weight=0.01)).weights.values())).dtype == torch.float32
    assert next(iter(Teacher(student, TeacherSettings()).weights.values())).dtype == torch.bfloat16
