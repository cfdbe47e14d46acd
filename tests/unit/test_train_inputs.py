"""What objectives read beside the student: selection, old policy, frozen base; against plain full-logits code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.objectives.baselines import old_policy_steps, select_top
from curiosft_cli.objectives.newer import cayley_floor
from curiosft_cli.objectives.reduction import Totals, term_weights
from curiosft_cli.objectives.temperature import solve_logits
from curiosft_cli.run.sections import TeacherSettings
from curiosft_cli.train.batches import Pack, make_pack
from curiosft_cli.train.encode import Row
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.saved_state import SavedState, rank_file
from curiosft_cli.train.student import Student
from curiosft_cli.train.suppliers import FrozenBase, OldPolicy, StepWide, Suppliers
from curiosft_cli.train.teacher import Teacher
from curiosft_cli.train.totals import count_totals

ROWS = [
    Row((5, 6, 7), (8, 9)),
    Row((10,), (11, 12, 13, 14, 15)),
    Row((3, 4, 5, 6), (7,)),
    Row((20, 21), (22, 23, 24)),
    Row((9, 9), (30, 31, 32, 33)),
]
TOKENS = sum(len(row.response_ids) for row in ROWS)
SPLITS = ([[0, 1, 2, 3, 4]], [[0, 3], [1], [4, 2]], [[4], [3], [2], [1], [0]])


@pytest.fixture
def student(tiny_model: Path) -> Student:
    return Student(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), chunk=3, compute_dtype=torch.float32
    )


def moved(student: Student, by: float = 0.03) -> None:
    """Change every weight a little, as training would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)


def packs_of(split: Sequence[Sequence[int]]) -> list[Pack]:
    return [make_pack(ROWS, members, "cpu") for members in split]


def gradients(student: Student, split: Sequence[Sequence[int]], name: str, inputs: Suppliers, **params: Any) -> list:
    objective = SFT_OBJECTIVES[name].bind(**params)
    packs = packs_of(split)
    extras = inputs.supply(0, packs)
    totals = count_totals(ROWS, packs, 5, objective, extras)
    student.zero_grad()
    for pack, extra in zip(packs, extras, strict=True):
        weights = [term_weights(term, "token_mean", pack.sequence, totals) for term in objective.terms]
        loss, _ = student(pack, objective, extra, weights, inputs.head_pass(pack))
        loss.backward()
    return [parameter.grad.clone() for parameter in student.parameters() if parameter.grad is not None]


def plain_logits(student: Student) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [N, V] of all rows from the library's own model, row by row, and the labels [N]."""
    logits, labels = [], []
    for row in ROWS:
        ids = torch.tensor([row.prompt_ids + row.response_ids])
        logits.append(student.model(ids).logits[0, len(row.prompt_ids) - 1 : -1])
        labels.append(ids[0, len(row.prompt_ids) :])
    return torch.cat(logits), torch.cat(labels)


def plain_gradients(student: Student, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> list:
    student.zero_grad()
    loss(*plain_logits(student)).backward()
    return [parameter.grad.clone() for parameter in student.parameters() if parameter.grad is not None]


def assert_equal(left: list, right: list) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, atol=3e-6, rtol=2e-4)


@pytest.mark.parametrize("denominator", ["all", "selected"])
@pytest.mark.parametrize("split", SPLITS, ids=["one", "three", "five"])
def test_the_top_tokens_are_those_of_the_whole_step(student: Student, denominator: str, split: list) -> None:
    coef, fraction = 0.5, 0.3

    def plain(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logp = logits.log_softmax(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        selected = select_top(entropy, top_fraction=fraction)
        assert 0 < int(selected.sum()) < TOKENS
        divisor = TOKENS if denominator == "all" else int(selected.sum())
        return -logp[torch.arange(TOKENS), labels].sum() / TOKENS - coef * (entropy * selected).sum() / divisor

    inputs = Suppliers([StepWide(student, Accelerator(cpu=True), partial(select_top, top_fraction=fraction))])
    params = {"entropy_coef": coef, "top_fraction": fraction, "denominator": denominator}
    assert_equal(gradients(student, split, "entropy_top", inputs, **params), plain_gradients(student, plain))


@pytest.mark.parametrize("kind", ["reverse", "forward", "k3"])
@pytest.mark.parametrize("split", SPLITS[:2], ids=["one", "three"])
def test_kl_is_measured_against_the_weights_that_training_started_from(
    student: Student, kind: str, split: list
) -> None:
    base = FrozenBase(student, whole=kind != "k3")
    frozen = plain_logits(student)[0].detach().log_softmax(-1)
    moved(student)

    def plain(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logp, place = logits.log_softmax(-1), torch.arange(TOKENS)
        ratio = frozen[place, labels] - logp[place, labels]
        divergence = {
            "reverse": (logp.exp() * (logp - frozen)).sum(-1),
            "forward": (frozen.exp() * (frozen - logp)).sum(-1),
            "k3": ratio.exp() - ratio - 1.0,
        }[kind]
        return (-logp[place, labels] + 0.7 * divergence).mean()

    expected = plain_gradients(student, plain)
    got = gradients(student, split, "kl", Suppliers([base], base), kl_kind=kind, kl_coef=0.7)
    assert_equal(got, expected)


@pytest.mark.parametrize("split", SPLITS, ids=["one", "three", "five"])
def test_the_cayley_floor_is_that_of_the_whole_step(student: Student, split: list) -> None:
    """However the step is split into packs, f is half the mean probability of all its tokens."""

    def plain(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logp = logits.log_softmax(-1)[torch.arange(TOKENS), labels]
        p = logp.detach().exp()
        floor = 0.5 * p.mean()
        exponent = floor + (1 - floor) * p / (2 - p)
        return ((1 - (exponent * logp).exp()) / exponent).mean()

    supplier = StepWide(
        student, Accelerator(cpu=True), partial(cayley_floor, floor_fraction=0.5), "logp", "focus_floor"
    )
    # The lowest exponent of the authors' code would hide the floor of so unsure a model.
    params = {"focus": "cayley", "focus_min": 0.0, "epsilon": 0.0}
    assert_equal(gradients(student, split, "deft", Suppliers([supplier]), **params), plain_gradients(student, plain))


@pytest.mark.parametrize("kind", ["reverse", "forward"])
@pytest.mark.parametrize("split", SPLITS[:2], ids=["one", "three"])
def test_the_teachers_whole_distribution_is_tempered_token_by_token(student: Student, kind: str, split: list) -> None:
    chosen = TeacherSettings(topk=64, low_entropy_guard=None, delta_max=0.1)
    moved(student, by=0.2)  # surer than at its start, so that temperatures differ
    teacher = Teacher(student, chosen)
    with torch.no_grad():
        frozen = plain_logits(student)[0]
        tau = solve_logits(frozen, chosen).tau
        other = (frozen / tau[:, None]).log_softmax(-1)
    assert len(tau.unique()) > 2
    moved(student)

    def plain(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logp = logits.log_softmax(-1)
        left, right = (logp, other) if kind == "reverse" else (other, logp)
        return (-logp[torch.arange(TOKENS), labels] + 0.7 * (left.exp() * (left - right)).sum(-1)).mean()

    inputs = Suppliers([teacher], teacher)
    got = gradients(student, split, "curio_distribution", inputs, kl_kind=kind, alpha=0.7)
    assert_equal(got, plain_gradients(student, plain))


def test_psft_refreshed_every_step_is_sft(student: Student) -> None:
    policy = OldPolicy(
        student, lambda step: packs_of(SPLITS[1]), window=partial(old_policy_steps, psft_old_refresh=1), total=9
    )
    assert_equal(
        gradients(student, SPLITS[1], "psft", Suppliers([policy])), gradients(student, SPLITS[0], "sft", Suppliers([]))
    )


def test_the_old_policy_is_the_one_of_the_windows_first_step(student: Student) -> None:
    """Steps 0-2 are measured at the start of step 0, steps 3-4 at the start of step 3; the run ends with step 4."""
    asked: list[int] = []

    def packs(step: int) -> list[Pack]:
        asked.append(step)
        return packs_of([[step]])

    policy = OldPolicy(student, packs, window=partial(old_policy_steps, psft_old_refresh=3), total=5)
    first = [student.scored(pack).logp for pack in packs_of([[0], [1], [2]])]
    for step in range(3):
        torch.testing.assert_close(policy.supply(step, packs_of([[step]]))[0]["old_logp"], first[step])
        moved(student)
    second = [student.scored(pack).logp for pack in packs_of([[3], [4]])]
    torch.testing.assert_close(policy.supply(3, packs_of([[3]]))[0]["old_logp"], second[0])
    moved(student)
    torch.testing.assert_close(policy.supply(4, packs_of([[4]]))[0]["old_logp"], second[1])
    assert asked == [1, 2, 4]


def as_saved(tensors: dict[str, Tensor], folder: Path) -> SavedState:
    save_file(tensors, folder / rank_file(0))
    return SavedState(folder)


def test_a_checkpoint_inside_a_window_keeps_what_its_remaining_steps_need(student: Student, tmp_path: Path) -> None:
    policy = OldPolicy(
        student, lambda step: packs_of([[step]]), window=partial(old_policy_steps, psft_old_refresh=4), total=9
    )
    policy.supply(0, packs_of([[0]]))
    kept = policy.state(2)
    assert sorted(kept) == ["own.old_logp.2.2", "own.old_logp.3.3"]
    moved(student)
    again = OldPolicy(
        student, lambda step: packs_of([[step]]), window=partial(old_policy_steps, psft_old_refresh=4), total=9
    )
    again.load(as_saved(kept, tmp_path))
    expected = policy.supply(2, packs_of([[2]]))[0]["old_logp"]
    assert torch.equal(again.supply(2, packs_of([[2]]))[0]["old_logp"], expected)


def test_inputs_are_asked_without_dropout(student: Student) -> None:
    """An adapter's dropout is noise of the training pass; it would move PSFT's ratio and the choice of tokens."""
    pack, halves = packs_of([[1]])[0], nn.Dropout(0.5)
    student.model.get_decoder().norm.register_forward_hook(lambda _, __, states: halves(states))
    halves.train(student.training)
    student.add_module("halves", halves)
    old = OldPolicy(student, lambda _: [pack], partial(old_policy_steps, psft_old_refresh=1), 2)
    chosen = StepWide(student, Accelerator(cpu=True), partial(select_top, top_fraction=0.4))
    student.eval()
    expected = student.scored(pack, HeadPass(entropy=True))
    student.train()
    assert not torch.equal(student.scored(pack).logp, expected.logp)
    assert torch.equal(old.supply(0, [pack])[0]["old_logp"], expected.logp)
    assert expected.entropy is not None
    assert torch.equal(chosen.supply(0, [pack])[0]["selected"], select_top(expected.entropy, top_fraction=0.4))
    assert student.training and halves.training


def test_the_frozen_base_survives_a_checkpoint(student: Student, tmp_path: Path) -> None:
    pack = packs_of([[1]])[0]
    base = FrozenBase(student, whole=False)
    before = base.supply(0, [pack])[0]["ref_logp"]
    kept = {name: weight.clone() for name, weight in base.state(3).items()}
    moved(student)
    again = FrozenBase(student, whole=False)
    assert not torch.equal(again.supply(0, [pack])[0]["ref_logp"], before)
    again.load(as_saved(kept, tmp_path))
    assert torch.equal(again.supply(0, [pack])[0]["ref_logp"], before)


def test_a_term_with_a_divisor_of_its_own() -> None:
    sequence = torch.tensor([0, 0, 1])
    totals = Totals(tokens=10, sequences=4, max_length=5, masks={"expert": 2})
    assert term_weights("tokens", "constant", sequence, totals).tolist() == pytest.approx([0.1] * 3)
    assert term_weights("reduction", "constant", sequence, totals).tolist() == pytest.approx([0.05] * 3)
    assert term_weights("expert", "constant", sequence, totals).tolist() == pytest.approx([0.5] * 3)


def test_a_step_without_expert_tokens_does_not_divide_by_zero() -> None:
    totals = Totals(tokens=3, sequences=1, masks={"expert": 0})
    assert torch.isfinite(term_weights("expert", "token_mean", torch.tensor([0, 0, 0]), totals)).all()
