"""Token inputs of the RL objectives: whose advantage each token bears, and the correction for the sampler."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curiosft_cli.engine.transformers_engine import draw
from curiosft_cli.objectives import RL_OBJECTIVES, TokenRows
from curiosft_cli.run.sections import Rl
from curiosft_cli.stages.rl.groups import TrainingSample
from curiosft_cli.stages.rl.updates import anchored, by_token, importance, importance_cap
from curiosft_cli.train.batches import make_pack
from curiosft_cli.train.encode import Row
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.scores import head_logp


def test_each_token_bears_its_writers_advantage() -> None:
    plain = TrainingSample(Row((5, 6), (7, 8)), 0, 1.0, 0, (-0.1, -0.2), advantage=2.0)
    guided = TrainingSample(Row((5,), (9, 9, 3)), 0, 1.0, 2, (-0.3,), advantage=1.0, given_advantage=-4.0)
    pack = make_pack([plain.row, guided.row], [1, 0], "cpu")
    extra = by_token([plain, guided], pack)
    assert pack.labels.tolist() == [9, 9, 3, 7, 8]
    assert extra["advantage"].tolist() == [-4.0, -4.0, 1.0, 2.0, 2.0]
    assert extra["expert"].tolist() == [True, True, False, False, False]
    assert extra["engine_logp"].tolist() == pytest.approx([0.0, 0.0, -0.3, -0.1, -0.2])


def test_the_nucleus_biases_the_ratio_by_exactly_its_mass() -> None:
    """Equal models; the sampler's probability is pi / kept, so pi_trainer / pi_sampler = kept."""
    logp = torch.tensor([-0.5, -2.0])
    kept = torch.tensor([0.95, 0.97])
    torch.testing.assert_close(importance(logp, logp, kept, 2.0), kept)
    torch.testing.assert_close(importance(logp, logp, None, 2.0), torch.ones(2))


def test_the_ratio_is_capped_and_the_trainers_over_the_engines() -> None:
    trainer, engine = torch.log(torch.tensor([0.6, 0.1, 0.9])), torch.log(torch.tensor([0.2, 0.2, 0.6]))
    torch.testing.assert_close(importance(trainer, engine, None, 2.0), torch.tensor([2.0, 0.5, 1.5]))


@given(st.integers(0, 1000), st.floats(0.3, 0.99))
def test_the_correction_is_unbiased_over_the_nucleus(seed: int, top_p: float) -> None:
    """E_sampler[ratio f] = sum over the nucleus of pi f: what sampling from pi and dropping the tail would give."""
    generator = torch.Generator().manual_seed(seed)
    hidden, head = torch.eye(6)[:1], torch.randn(12, 6, generator=generator) * 2
    labels = torch.zeros(1, dtype=torch.long)
    kept = head_logp(hidden, head, labels, head_pass=HeadPass(top_p=top_p)).kept_mass
    logits = hidden @ head.T
    probability = logits.softmax(-1)[0]
    uniform = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    tokens, _ = draw(logits.expand(4000, -1), uniform, 1.0, top_p)
    ratio = importance(probability[tokens].log(), probability[tokens].log(), kept, 2.0)
    value = torch.arange(12.0)
    nucleus = torch.zeros(12).scatter(0, tokens.unique(), 1.0)
    assert kept is not None and float(kept) == pytest.approx(float((probability * nucleus).sum()), abs=1e-5)
    assert float((ratio * value[tokens]).mean()) == pytest.approx(
        float((probability * nucleus * value).sum()), abs=0.02
    )


def test_one_update_needs_no_old_pass_and_corrects_in_the_walk() -> None:
    """ratio 1, A = 3, trainer 0.4, engine 0.5: the loss is -3 * 0.8; the expert's token is not corrected."""
    objective = anchored(RL_OBJECTIVES["luffy"].bind(shaping_gamma=None, entropy_coef=0.0), Rl(), 2.0)
    logp = torch.log(torch.tensor([0.4, 0.4])).requires_grad_()
    extra = {
        "advantage": torch.tensor([3.0, 3.0]),
        "expert": torch.tensor([False, True]),
        "engine_logp": torch.tensor([math.log(0.5), 0.0]),
    }
    loss = objective.fn(TokenRows(logp, torch.zeros(2, dtype=torch.long), extra)).terms[0]
    assert loss.tolist() == pytest.approx([-3 * 0.8, -3 * 0.4])
    loss.sum().backward()
    assert logp.grad is not None and logp.grad.tolist() == pytest.approx([-3 * 0.8, -3 * 0.4])


def test_the_correction_is_on_for_bfloat16() -> None:
    assert importance_cap(Rl(), "bfloat16") == 2.0 and importance_cap(Rl(), "float32") is None
    assert importance_cap(Rl(importance_sampling="on", importance_cap=3.0), "float32") == 3.0
    assert importance_cap(Rl(importance_sampling="off"), "bfloat16") is None
