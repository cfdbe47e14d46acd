"""The student on a tiny real model: packing and splitting must not be visible in loss or gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
)

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.objectives.reduction import REDUCTIONS, Totals
from curiosft_cli.run.sections import TeacherSettings
from curiosft_cli.train.attention import can_pack, register_packed_attention
from curiosft_cli.train.batches import make_pack, partition
from curiosft_cli.train.encode import Row
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.student import Student
from curiosft_cli.train.teacher import Teacher

ROWS = [
    Row((5, 6, 7), (8, 9)),
    Row((10,), (11, 12, 13, 14, 15)),
    Row((3, 4, 5, 6), (7,)),
    Row((20, 21), (22, 23, 24)),
    Row((9, 9), (30, 31, 32, 33)),
]


@pytest.fixture
def student(tiny_model: Path) -> Student:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    return Student(model, chunk=4, compute_dtype=torch.float32)


def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def gradients(student: Student, groups: Sequence[Sequence[int]], reduction: str = "token_mean") -> tuple[float, list]:
    objective = SFT_OBJECTIVES["sft"].bind()
    totals = Totals(sum(len(row.response_ids) for row in ROWS), len(ROWS), max_length=5)
    student.zero_grad()
    value = 0.0
    for group in groups:
        pack = make_pack(ROWS, group, "cpu")
        loss, _ = student(pack, objective, {}, REDUCTIONS[reduction](pack.sequence, totals))
        loss.backward()
        value += float(loss.detach())
    return value, [parameter.grad.clone() for parameter in student.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("make", [None, llama], ids=["qwen2-tied", "llama-untied"])
@pytest.mark.parametrize("reduction", ["token_mean", "seq_mean_token_mean"])
def test_packed_equals_row_by_row(student: Student, make: object, reduction: str) -> None:
    if make is not None:
        student = Student(llama(), chunk=4, compute_dtype=torch.float32)
    alone, one = gradients(student, [[row] for row in range(len(ROWS))], reduction)
    packed, two = gradients(student, [list(range(len(ROWS)))], reduction)
    split, three = gradients(student, partition([len(row) for row in ROWS], 9, 1), reduction)
    assert packed == pytest.approx(alone, abs=1e-5)
    assert split == pytest.approx(alone, abs=1e-5)
    for a, b, c in zip(one, two, three, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(a, c, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_attention_row_by_row_equals_a_mask(kv_heads: int) -> None:
    """Loss and gradients, grouped heads or not; a row that reads its neighbour would show."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=kv_heads, max_position_embeddings=64,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("sdpa")
    masked = gradients(Student(model, chunk=4, compute_dtype=torch.float32), [[0, 1, 2], [3, 4]])
    model.set_attn_implementation(register_packed_attention())
    packed = gradients(Student(model, chunk=4, compute_dtype=torch.float32), [[0, 1, 2], [3, 4]])
    assert packed[0] == pytest.approx(masked[0], abs=1e-6)
    for a, b in zip(packed[1], masked[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_attention_that_was_not_told_the_rows_refuses(student: Student) -> None:
    student.model.set_attn_implementation(register_packed_attention())
    with pytest.raises(ValueError, match=r"model\.attention=sdpa"):
        student.model(torch.tensor([[1, 2, 3]]))


def test_windows_need_a_mask() -> None:
    assert can_pack(LlamaConfig())
    assert can_pack(Qwen2Config())
    assert not can_pack(MistralConfig(sliding_window=16))
    assert not can_pack(Qwen2Config(use_sliding_window=True, sliding_window=16, max_window_layers=1))


def test_the_loss_is_the_library_models_own(student: Student) -> None:
    """Mean cross-entropy over the response tokens, from full logits of each row by itself."""
    total = 0.0
    for row in ROWS:
        ids = torch.tensor([row.prompt_ids + row.response_ids])
        logp = student.model(ids).logits[0].log_softmax(-1)
        places = range(len(row.prompt_ids) - 1, len(row) - 1)
        total -= sum(float(logp[place, ids[0, place + 1]].detach()) for place in places)
    value, _ = gradients(student, [[0, 1, 2], [3, 4]])
    assert value == pytest.approx(total / sum(len(row.response_ids) for row in ROWS), abs=1e-5)


def test_curio_with_alpha_0_is_sft_in_every_gradient(student: Student) -> None:
    pack = make_pack(ROWS, range(len(ROWS)), "cpu")
    weights = torch.full((len(pack.labels),), 1 / len(pack.labels))
    student.zero_grad()
    student(pack, SFT_OBJECTIVES["sft"].bind(), {}, weights)[0].backward()
    plain = [parameter.grad.clone() for parameter in student.parameters() if parameter.grad is not None]
    student.zero_grad()
    teacher = Teacher(student, TeacherSettings(topk=64))
    extra = {"teacher_logp": teacher.logp(pack).logp}
    student(pack, SFT_OBJECTIVES["curio"].bind(alpha=0.0), extra, weights)[0].backward()
    for before, parameter in zip(plain, student.parameters(), strict=True):
        torch.testing.assert_close(before, parameter.grad)


def test_the_self_teacher_equals_a_fresh_copy(student: Student) -> None:
    pack = make_pack(ROWS, range(len(ROWS)), "cpu")
    weights = torch.full((len(pack.labels),), 1 / len(pack.labels))
    objective = SFT_OBJECTIVES["curio"].bind()
    settings = TeacherSettings(topk=64)
    copy = Teacher(student, settings)
    with_copy, _ = student(pack, objective, {"teacher_logp": copy.logp(pack).logp}, weights)
    with_self, rows = student(pack, objective, {}, weights, HeadPass(self_teacher=settings))
    torch.testing.assert_close(with_self, with_copy)
    assert rows.teacher is not None


def test_a_dummy_pack_weighs_nothing(student: Student) -> None:
    pack = make_pack(ROWS, [0], "cpu", counted=False)
    loss, _ = student(pack, SFT_OBJECTIVES["sft"].bind(), {}, torch.zeros(len(pack.labels)))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(not parameter.grad.any() for parameter in student.parameters() if parameter.grad is not None)


def test_the_teacher_follows_every_n_steps_and_mixes_a_tied_weight_once(student: Student) -> None:
    """s = 0.25: after one synchronisation each weight is 0.75 of the old plus 0.25 of the new."""
    settings = TeacherSettings(student_weight=0.25, sync_every=2)
    teacher = Teacher(student, settings)
    before = {name: value.clone() for name, value in teacher.weights.items()}
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter += 1.0
    assert not teacher.update(1)
    assert teacher.update(2)
    for name, value in teacher.weights.items():
        torch.testing.assert_close(value, before[name] + 0.25, atol=1e-6, rtol=1e-6)


def test_asking_the_teacher_leaves_the_student_bit_for_bit_as_it_was(student: Student) -> None:
    """The answer is that of a separate model with the teacher's weights, also after the student has moved on."""
    pack = make_pack(ROWS, range(len(ROWS)), "cpu")
    teacher = Teacher(student, TeacherSettings(topk=64))
    before = teacher.logp(pack)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.5)
    moved = {name: value.clone() for name, value in student.named_parameters()}
    kept = {name: value.clone() for name, value in teacher.weights.items()}
    student.train()
    torch.testing.assert_close(teacher.logp(pack).logp, before.logp, atol=0, rtol=0)
    assert student.training
    assert all(torch.equal(value, moved[name]) for name, value in student.named_parameters())
    assert all(torch.equal(value, kept[name]) for name, value in teacher.weights.items())
    assert not torch.allclose(Teacher(student, TeacherSettings(topk=64)).logp(pack).logp, before.logp)
