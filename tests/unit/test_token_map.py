"""Per-token values of the curiosity map, against numbers worked out by hand and against the training pass itself."""

from __future__ import annotations

from math import log
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.objectives.temperature import TemperatureSettings
from curiosft_cli.train.head.kernels import Kernels
from curiosft_cli.train.token_map import STUDENT, TEACHER, token_values

FIXED = TemperatureSettings(tau_mode="fixed", tau_fixed=2.0)
# Probabilities 1/2, 1/4, 1/4 and 8/10, 1/10, 1/10.
LOGITS = torch.tensor([[2.0, 1.0, 1.0], [8.0, 1.0, 1.0]]).log()
LABELS = torch.tensor([1, 0])


def test_values_by_hand_with_a_teacher_at_temperature_two() -> None:
    """The teacher's logits are ln of 4, 1, 1; at temperature 2 its probabilities are 2/4, 1/4, 1/4.

    Entropies of the student: 1/2 ln 2 + 1/2 ln 4 = 1.5 ln 2, and 0.8 ln 1.25 + 0.2 ln 10. Gaps: ln(1/4) - ln(1/4) = 0
    and ln 0.8 - ln 0.5 = ln 1.6. Weights with alpha 2: 1 - 2 x gap.
    """
    teacher = torch.tensor([[4.0, 1.0, 1.0]]).log().expand(2, 3)
    objective = SFT_OBJECTIVES["curio"].bind(alpha=2.0)
    values, likeliest = token_values(LOGITS, LABELS, objective, (teacher, FIXED), Kernels(), candidates=2)
    expected = {
        "entropy": [1.5 * log(2), 0.8 * log(1.25) + 0.2 * log(10)],
        "logp": [log(0.25), log(0.8)],
        "teacher_logp": [log(0.25), log(0.5)],
        "tau": [2.0, 2.0],
        "gap": [0.0, log(1.6)],
        "weight": [1.0, 1.0 - 2.0 * log(1.6)],
    }
    for name, numbers in expected.items():
        torch.testing.assert_close(values[name], torch.tensor(numbers), atol=1e-6, rtol=1e-5)
    entropy = torch.tensor(log(6) - 4 / 6 * log(4))  # of 4/6, 1/6, 1/6
    delta = 0.5 * (2.0 * (entropy - 1.2)).sigmoid()  # Eq. 7 with its defaults
    torch.testing.assert_close(values["delta"], delta.expand(2))
    assert likeliest[STUDENT][0][1].tolist()[0] == 0
    torch.testing.assert_close(likeliest[STUDENT][1], torch.tensor([[0.5, 0.25], [0.8, 0.1]]))
    torch.testing.assert_close(likeliest[TEACHER][1], torch.tensor([[0.5, 0.25], [0.5, 0.25]]))


@pytest.mark.parametrize(
    ("name", "weight"),
    [("sft", None), ("dft", [0.25, 0.8]), ("psft", None)],  # dft weighs a token by its probability
)
def test_without_a_teacher_there_are_the_student_s_own_values(name: str, weight: list[float] | None) -> None:
    values, likeliest = token_values(LOGITS, LABELS, SFT_OBJECTIVES[name].bind(), None, Kernels())
    assert set(values) == {"entropy", "logp", *(["weight"] if weight else [])} and set(likeliest) == {STUDENT}
    assert likeliest[STUDENT][0].shape == (2, 3)  # no more than the vocabulary has
    if weight:
        torch.testing.assert_close(values["weight"], torch.tensor(weight))


def test_values_are_those_of_the_training_pass(tiny_model: Path) -> None:
    """Entropy, log-probability, gap, weight and temperature of each token equal what the step itself computes."""
    from curiosft_cli.objectives.reduction import term_weights
    from curiosft_cli.run.sections import TeacherSettings
    from curiosft_cli.train.batches import make_pack
    from curiosft_cli.train.encode import Row
    from curiosft_cli.train.student import Student
    from curiosft_cli.train.suppliers import Suppliers
    from curiosft_cli.train.teacher import Teacher
    from curiosft_cli.train.token_map import _tiles
    from curiosft_cli.train.totals import count_totals

    rows = [Row((5, 6, 7), (8, 9)), Row((10,), (11, 12, 13, 14, 15))]
    student = Student(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), chunk=3, compute_dtype=torch.float32
    )
    teacher = Teacher(student, TeacherSettings(topk=64))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.03 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    suppliers, pack, objective = Suppliers([teacher]), make_pack(rows, [0, 1], "cpu"), SFT_OBJECTIVES["curio"].bind()
    extras = suppliers.supply(0, [pack])
    totals = count_totals(rows, [pack], 5, objective, extras)
    weights = [term_weights(term, "token_mean", pack.sequence, totals) for term in objective.terms]
    _, seen = student(pack, objective, extras[0], weights, suppliers.head_pass(pack))
    parts = [
        token_values(logits, pack.labels[rows], objective, taught, student.kernels)[0]
        for rows, logits, taught in _tiles(student, suppliers, pack)
    ]
    assert len(parts) == 3  # chunks of 3, 3 and 1 tokens
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    assert seen.entropy is not None
    expected = {"entropy": seen.entropy, "logp": seen.logp, "gap": seen.stats["gap_nats"]}
    expected |= {"weight": seen.stats["token_weight"], "tau": extras[0]["teacher_tau"]}
    for name, numbers in expected.items():
        torch.testing.assert_close(found[name], numbers, atol=2e-5, rtol=1e-5)
