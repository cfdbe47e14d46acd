"""What must hold for any tokens: identities between objectives, invariances, and numbers checked by hand."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from split_advantage import split_advantage
from torch import Tensor

from curiosft_cli.objectives import (
    RL_OBJECTIVES,
    SFT_OBJECTIVES,
    Objective,
    TokenLoss,
    TokenRows,
    baselines,
    groups,
    hybrid,
    newer,
    objective_parameters,
)
from curiosft_cli.objectives.curio import curio, curio_distribution, token_weight
from curiosft_cli.objectives.grpo import group_advantage, grpo
from curiosft_cli.objectives.reduction import REDUCTIONS, Totals
from curiosft_cli.objectives.temperature import (
    AT_TAU_MAX,
    AT_TAU_MIN,
    FREE,
    GUARDED,
    TemperatureSettings,
    increment,
    solve_logits,
)
from curiosft_cli.objectives.tokens import entropy, label_logp, tempered_logp, top_k_entropy

quick = settings(deadline=None, max_examples=30)  # a first call pays for torch's start


def numbers(low: float, high: float) -> SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


def logits_of(seed: int, tokens: int = 6, vocabulary: int = 40, scale: float = 3.0) -> Tensor:
    return torch.randn(tokens, vocabulary, generator=torch.Generator().manual_seed(seed)) * scale


def gradient(fn: Any, logits: Tensor, labels: Tensor, extra: dict[str, Tensor] | None = None, **params: Any) -> Tensor:
    """d sum(loss) / d logits."""
    leaf = logits.clone().requires_grad_()
    rows = TokenRows(label_logp(leaf, labels), labels, extra or {}, entropy(leaf), leaf, logits.flip(-1))
    return torch.autograd.grad(torch.stack(fn(rows, **params).terms).sum(), leaf)[0]


# ---- by hand --------------------------------------------------------------------------------------------------


def test_sft_by_hand() -> None:
    """V = 4, logits ln(1, 2, 3, 4): p = (.1, .2, .3, .4); label 2 gives -ln .3 and gradient p - onehot."""
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
    labels = torch.tensor([2])
    assert float(-label_logp(logits, labels)) == pytest.approx(-math.log(0.3))
    assert gradient(baselines.sft, logits, labels)[0].tolist() == pytest.approx([0.1, 0.2, -0.7, 0.4])


def test_curio_by_hand() -> None:
    """logp = ln .3, teacher ln .6: log-ratio -ln 2, loss -ln .3 + .5 (ln 2)^2 = 1.2040 + 0.2402; w = 1 + ln 2."""
    logp, teacher = torch.tensor([0.3]).log(), torch.tensor([0.6]).log()
    out = curio(TokenRows(logp, torch.tensor([0]), {"teacher_logp": teacher}))
    assert float(out.terms[0]) == pytest.approx(1.2040 + 0.2402, abs=1e-4)
    assert float(token_weight(logp, teacher, 1.0)) == pytest.approx(1.6931, abs=1e-4)


def test_entropy_gradient_by_hand() -> None:
    """p = (.5, .5): H = ln 2 is the maximum, so the bonus adds nothing to the gradient p - onehot."""
    got = gradient(baselines.entropy, torch.zeros(1, 2), torch.tensor([0]), entropy_coef=0.5)
    assert got[0].tolist() == pytest.approx([-0.5, 0.5])


def test_gem_linear_by_hand() -> None:
    """beta = 1, p = (.25, .75), label 0: q = p, so the gradient is p - onehot = (-.75, .75)."""
    logits = torch.tensor([[0.25, 0.75]]).log()
    got = gradient(baselines.gem, logits, torch.tensor([0]), beta=1.0, gem_h="linear")
    assert got[0].tolist() == pytest.approx([-0.75, 0.75])


def test_kl_by_hand() -> None:
    """p = (.5, .5), base = (.25, .75): KL(p || b) = .5 ln 2 + .5 ln(2/3) = 0.1438; KL(b || p) = 0.1308."""
    student, base = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    for kind, want in (("reverse", 0.1438), ("forward", 0.1308)):
        rows = TokenRows(label_logp(student, torch.tensor([0])), torch.tensor([0]), logits=student, ref_logits=base)
        out = baselines.kl(rows, kl_coef=1.0, kl_kind=kind)
        assert float(out.terms[0]) == pytest.approx(math.log(2) + want, abs=1e-4)


def test_curio_distribution_by_hand() -> None:
    """p = (1/2, 1/2); teacher (1/5, 4/5) at temperature 2 is 1 : 2, so q = (1/3, 2/3), and the label is 0.

    KL(p || q) = 1/2 ln(3/2) + 1/2 ln(3/4) = 0.0589, KL(q || p) = 1/3 ln(2/3) + 2/3 ln(4/3) = 0.0566.
    Gradients beside cross-entropy's p - onehot = (-1/2, 1/2): reverse p_v (ln(p_v / q_v) - KL) = 1/2 (0.4055 - 0.0589)
    = 0.1733 and -0.1733; forward p - q = (1/6, -1/6).
    """
    teacher = torch.tensor([[0.2, 0.8]]).log()
    for kind, value, slope in (("reverse", 0.0589, 0.1733), ("forward", 0.0566, 1 / 6)):
        leaf = torch.zeros(1, 2, requires_grad=True)
        label, tau = torch.tensor([0]), torch.tensor([2.0])
        rows = TokenRows(label_logp(leaf, label), label, {"teacher_tau": tau}, logits=leaf, ref_logits=teacher)
        out = curio_distribution(rows, alpha=2.0, kl_kind=kind)
        assert float(out.terms[0].detach()) == pytest.approx(math.log(2) + 2 * value, abs=2e-4)
        (grad,) = torch.autograd.grad(out.terms[0].sum(), leaf)
        assert grad[0].tolist() == pytest.approx([-0.5 + 2 * slope, 0.5 - 2 * slope], abs=2e-4)
        assert float(out.stats["gap_nats"]) == pytest.approx(math.log(1.5))


def test_eaft_by_hand() -> None:
    """Logits ln(1, 1, 2): the two largest are 2 : 1, H_2 = ln 3 - 2/3 ln 2 = 0.6365; w = (H_2 / 3)^2 = 0.0450."""
    logits, label = torch.tensor([[1.0, 1.0, 2.0]]).log(), torch.tensor([2])
    got = gradient(newer.eaft, logits, label, alpha=2.0, topk=2)
    assert got[0].tolist() == pytest.approx([0.0450 / 4, 0.0450 / 4, -0.0450 / 2], abs=1e-5)


def test_sed_sft_by_hand() -> None:
    """p = (1/4, 3/4), label 0, l = 2: loss ln 4 + 2 (1/4)^2 = 1.5113, w = 1 + 2 x 1/4 x 1/2 = 5/4; unselected: ln 4, 1."""
    logits, label = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([0])
    for threshold, loss, weight in ((0.8, 1.5113, 1.25), (0.7, 1.3863, 1.0)):
        params: dict[str, Any] = {"coef": 2.0, "topk": 1, "threshold": threshold}
        out = newer.sed_sft(TokenRows(label_logp(logits, label), label, logits=logits), **params)
        assert float(out.terms[0]) == pytest.approx(loss, abs=1e-4)
        assert gradient(newer.sed_sft, logits, label, **params)[0].tolist() == pytest.approx(
            [-0.75 * weight, 0.75 * weight]
        )


def test_deft_by_hand() -> None:
    """p = (1/2, 1/2): g = 1/4 + 1/4, loss 2 (1 - 2^(-1/2)) = 0.5858. Cayley, f = 1/2: 1/2 + 1/2 x 1/3 = 2/3."""
    logits, label = torch.zeros(1, 2), torch.tensor([0])
    rows = TokenRows(label_logp(logits, label), label, {"focus_floor": torch.tensor([0.5])}, logits=logits)
    for focus, g, loss in (("concentration", 0.5, 0.5858), ("cayley", 2 / 3, 1.5 * (1 - 2 ** (-2 / 3)))):
        out = newer.deft(rows, focus=focus)
        assert float(out.stats["focus"]) == pytest.approx(g)
        assert float(out.terms[0]) == pytest.approx(loss, abs=1e-4)
    assert newer.cayley_floor(torch.tensor([0.5, 0.25, 0.75]).log()).tolist() == pytest.approx([0.25] * 3)
    assert newer.cayley_floor(torch.zeros(0)).shape == (0,)


def test_grpo_by_hand() -> None:
    """Ratios 1.5, 1.5, 0.5, 0.5 with A = 1, -1, 1, -1 clip to 1.28, stay 1.5, stay 0.5, clip to 0.8."""
    logp = torch.tensor([1.5, 1.5, 0.5, 0.5]).log()
    extra = {"old_logp": torch.zeros(4), "advantage": torch.tensor([1.0, -1.0, 1.0, -1.0])}
    out = grpo(TokenRows(logp, torch.zeros(4, dtype=torch.int64), extra))
    assert out.terms[0].tolist() == pytest.approx([-1.28, 1.5, -0.5, 0.8])
    assert out.stats["clipped"].tolist() == [1.0, 0.0, 0.0, 1.0]


def test_group_advantage_by_hand() -> None:
    """Rewards (1, 0, 0) have mean 1/3 and unbiased std sqrt(1/3); (.3, .3, .3) are equal; a lone row is 0 or r."""
    reward = torch.tensor([1.0, 0.0, 0.0, 0.3, 0.3, 0.3, 1.0])
    group = torch.tensor([7, 7, 7, 2, 2, 2, 5])
    got = group_advantage(reward, group)
    assert got[:3].tolist() == pytest.approx([2 / 3 * math.sqrt(3), -1 / 3 * math.sqrt(3), -1 / 3 * math.sqrt(3)], 1e-4)
    assert got[3:].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert float(group_advantage(reward, group, use_std=False, single_row="upstream")[-1]) == 1.0
    assert group_advantage(reward[:0], group[:0]).shape == (0,)


def test_split_advantage_without_a_baseline_is_zero() -> None:
    """A group with one sampled row has no baseline for its expert row either."""
    reward, group = torch.tensor([1.0, 0.0]), torch.tensor([0, 0])
    assert split_advantage(reward, group, torch.tensor([False, True])).tolist() == [0.0, 0.0]


def test_prefix_schedule_and_length_by_hand() -> None:
    low = partial(groups.prefix_low, prefix_start=0.95, prefix_end=0.05, prefix_decay_steps=500)
    assert [low(step) for step in (0, 250, 500, 900)] == pytest.approx([0.95, 0.5, 0.05, 0.05])
    assert [groups.prefix_length(share, 10, 2) for share in (0.0, 0.55, 1.0)] == [2, 5, 9]
    assert groups.prefix_length(0.5, 1, 2) == 0


def test_continuation_baseline() -> None:
    """Plain rewards 0 and 1 (mu = .5), prefixed 1: prefix tokens .5; the continuation 1 uncentred or .5 centred."""
    reward, group, prefixed = torch.tensor([0.0, 1.0, 1.0]), torch.zeros(3, dtype=torch.int64), torch.tensor([0, 0, 1])
    for baseline, want in (("none", 1.0), ("group", 0.5)):
        sampled, given_to = groups.prefix_advantage(reward, group, prefixed, continuation_baseline=baseline)
        assert sampled.tolist() == pytest.approx([-0.5, 0.5, want])
        assert given_to.tolist() == pytest.approx([0.0, 0.0, 0.5])


# ---- identities -------------------------------------------------------------------------------------------------


@quick
@given(st.integers(0, 1000))
def test_alpha_zero_is_sft(seed: int) -> None:
    logits, labels = logits_of(seed), torch.arange(6)
    extra = {"teacher_logp": logits_of(seed + 1)[:, 0].abs().neg()}
    torch.testing.assert_close(
        gradient(curio, logits, labels, extra, alpha=0.0), gradient(baselines.sft, logits, labels)
    )


@quick
@given(st.integers(0, 1000), numbers(0.0, 3.0))
def test_curio_is_cross_entropy_with_a_weight(seed: int, alpha: float) -> None:
    """w = 1 - alpha (log pi - log pi_tch)."""
    logits, labels = logits_of(seed), torch.arange(6)
    teacher = label_logp(logits_of(seed + 1), labels)
    weight = token_weight(label_logp(logits, labels), teacher, alpha)[:, None]
    want = weight * gradient(baselines.sft, logits, labels)
    got = gradient(curio, logits, labels, {"teacher_logp": teacher}, alpha=alpha)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fn", "params"),
    [
        (newer.eaft, {"alpha": 0.333}),
        (newer.sed_sft, {"coef": 1.7}),
        (newer.deft, {}),
        (newer.deft, {"focus": "cayley"}),
    ],
)
@quick
@given(st.integers(0, 1000), numbers(0.1, 20.0))
def test_the_newer_are_cross_entropy_with_the_weight_that_they_report(
    fn: Any, params: dict[str, Any], seed: int, scale: float
) -> None:
    """Also for tokens so sure that their entropy is 0, where a power below 1 of a rounded one would not be a number."""
    logits, labels = logits_of(seed, scale=scale), torch.arange(6)
    extra = {"focus_floor": torch.full((6,), 0.1)}
    weight = fn(TokenRows(label_logp(logits, labels), labels, extra, logits=logits), **params).stats["token_weight"]
    want = weight[:, None] * gradient(baselines.sft, logits, labels)
    torch.testing.assert_close(gradient(fn, logits, labels, extra, **params), want, rtol=1e-3, atol=1e-5)


@quick
@given(st.integers(0, 1000), numbers(0.0, 2.0))
def test_asft_is_dft_with_an_anchor(seed: int, alpha: float) -> None:
    """w = p, and a (pi - ref) is added."""
    logits, labels = logits_of(seed), torch.arange(6)
    anchor = alpha * (logits.softmax(-1) - logits.flip(-1).softmax(-1))
    want = gradient(baselines.dft, logits, labels) + anchor
    torch.testing.assert_close(gradient(newer.asft, logits, labels, alpha=alpha), want, rtol=1e-4, atol=1e-5)


@quick
@given(st.integers(0, 1000))
def test_the_newer_become_sft_where_they_should(seed: int) -> None:
    logits, labels = logits_of(seed), torch.arange(6)
    plain, extra = gradient(baselines.sft, logits, labels), {"teacher_tau": torch.ones(6)}
    for fn, params in (
        (newer.eaft, {"alpha": 0.0}),
        (newer.sed_sft, {"coef": 0.0}),
        (curio_distribution, {"alpha": 0.0}),
    ):
        torch.testing.assert_close(gradient(fn, logits, labels, extra, **params), plain)


@quick
@given(st.integers(0, 1000))
def test_equal_teacher_at_temperature_one_distils_nothing(seed: int) -> None:
    logits, labels = logits_of(seed), torch.arange(6)
    logp = label_logp(logits, labels)
    out = curio(TokenRows(logp, labels, {"teacher_logp": logp}))
    assert not out.stats["sed"].any()
    solution = solve_logits(logits, TemperatureSettings(tau_min=1.0, delta_max=0.0, low_entropy_guard=None))
    assert (solution.tau == 1.0).all()


@quick
@given(st.integers(0, 1000))
def test_ratio_one_is_the_policy_gradient(seed: int) -> None:
    """At pi = pi_old PSFT has SFT's gradient, and GRPO's is -A times that of log pi."""
    logits, labels = logits_of(seed), torch.arange(6)
    extra = {"old_logp": label_logp(logits, labels), "advantage": logits_of(seed + 1)[:, 0]}
    plain = gradient(baselines.sft, logits, labels)
    torch.testing.assert_close(gradient(baselines.psft, logits, labels, extra), plain)
    torch.testing.assert_close(gradient(grpo, logits, labels, extra), extra["advantage"][:, None] * plain)


@quick
@given(st.integers(0, 1000), numbers(0.5, 1.5))
def test_gem_linear_is_scaled_cross_entropy(seed: int, beta: float) -> None:
    """Its gradient is beta times that of cross-entropy on z / beta."""
    logits, labels = logits_of(seed), torch.arange(6)
    leaf = logits.clone().requires_grad_()
    (want,) = torch.autograd.grad(-beta * label_logp(leaf / beta, labels).sum(), leaf)
    got = gradient(baselines.gem, logits, labels, beta=beta, gem_h="linear")
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@quick
@given(st.integers(0, 1000))
def test_kl_to_the_uniform_is_log_v_minus_entropy(seed: int) -> None:
    """Appendix A."""
    logits = logits_of(seed)
    student, uniform = logits.log_softmax(-1), torch.zeros_like(logits).log_softmax(-1)
    divergence = baselines.kl_divergence(student, uniform)
    torch.testing.assert_close(divergence, math.log(logits.shape[1]) - entropy(logits), rtol=1e-4, atol=1e-5)


@quick
@given(st.integers(0, 1000), numbers(0.2, 5.0), numbers(0.0, 5.0))
def test_entropy_does_not_fall_with_temperature(seed: int, tau: float, more: float) -> None:
    """Appendix B."""
    logits = logits_of(seed)
    assert (entropy(logits, tau + more) >= entropy(logits, tau) - 1e-5).all()


@quick
@given(st.integers(0, 1000))
def test_tempered_is_the_closest_with_its_entropy(seed: int) -> None:
    """Appendix C, by sampling: no distribution of the same entropy is nearer in KL(q || pi) than the tempered one."""
    pi = logits_of(seed, tokens=1, vocabulary=6, scale=1.5).double()
    tempered = tempered_logp(pi, 1.4).double()
    want, best = entropy(pi, 1.4), baselines.kl_divergence(tempered, pi.log_softmax(-1))
    others = torch.randn(400, 6, generator=torch.Generator().manual_seed(seed)).double() * 2
    low, high = torch.full((400,), 1e-3).double(), torch.full((400,), 50.0).double()
    for _ in range(80):  # bring every sample to that entropy by its own temperature
        middle = (low + high) / 2
        colder = (others / middle[:, None]).softmax(-1)
        cold = -(colder * colder.log()).nan_to_num().sum(-1) < want
        low, high = torch.where(cold, middle, low), torch.where(cold, high, middle)
    q = (others / middle[:, None]).log_softmax(-1)
    reached = ((-(q.exp() * q).sum(-1)) - want).abs() < 1e-4
    distance = baselines.kl_divergence(q, pi.log_softmax(-1))[reached]
    assert len(distance) and (distance >= best - 1e-3).all()


SHIFTED: list[tuple[str, Objective, dict[str, Any]]] = [
    (name, objective, params)
    for table in (SFT_OBJECTIVES, RL_OBJECTIVES)
    for name, objective in table.items()
    for params in ([{"kl_kind": kind} for kind in ("reverse", "forward", "k3")] if name == "kl" else [{}])
]


@pytest.mark.parametrize(("name", "objective", "params"), SHIFTED)
def test_a_constant_added_to_the_logits_changes_nothing(
    name: str, objective: Objective, params: dict[str, Any]
) -> None:
    logits, labels = logits_of(3), torch.arange(6)
    old = label_logp(logits_of(4), labels)
    extra = {
        **{"teacher_logp": old, "old_logp": old, "ref_logp": old, "advantage": torch.linspace(-1, 1, 6)},
        **{"teacher_tau": torch.linspace(1.1, 1.5, 6), "focus_floor": torch.full((6,), 0.1)},
        **{"expert": torch.arange(6) % 2 == 0, "selected": torch.arange(6) % 3 == 0},
    }
    fn = objective.bind(**params).fn
    here, there = (gradient(fn, logits + shift, labels, extra) for shift in (0.0, 1000.0))
    assert here.abs().max() > 0
    torch.testing.assert_close(here, there, rtol=2e-3, atol=1e-3)


def test_luffy_without_expert_tokens_is_reinforce_on_the_ratio() -> None:
    logits, labels = logits_of(5), torch.arange(6)
    extra = {"old_logp": label_logp(logits, labels), "advantage": torch.ones(6), "expert": torch.zeros(6).bool()}
    got = gradient(hybrid.luffy, logits, labels, extra, entropy_coef=0.0)
    torch.testing.assert_close(got, gradient(baselines.sft, logits, labels))


def test_masked_logits_have_no_probability_and_no_entropy() -> None:
    """-inf logits: 0 log 0 = 0, in value and in gradient."""
    logits = torch.tensor([[0.0, 0.0, -math.inf, -math.inf]])
    assert float(entropy(logits)) == pytest.approx(math.log(2))
    assert float(top_k_entropy(logits, 3)) == pytest.approx(math.log(2))
    assert gradient(baselines.entropy, logits, torch.tensor([0]))[0].isfinite().all()
    solution = solve_logits(logits, TemperatureSettings(topk=3))
    assert solution.tau.isfinite().all() and float(solution.entropy) == pytest.approx(math.log(2))


# ---- temperature --------------------------------------------------------------------------------------------------


def exact_tau(logits: Tensor, s: TemperatureSettings, halvings: int = 60) -> Tensor:
    """Eq. 8 by float64 bisections on the top-k logits, clamped to the range; no guard."""
    top = logits.double().topk(min(s.topk, logits.shape[1])).values

    def h(tau: Tensor) -> Tensor:
        p = (top / tau[:, None]).log_softmax(-1)
        return -(p.exp() * p).sum(-1)

    ones = torch.ones(len(top), dtype=torch.float64)
    start = h(ones)
    target = start + increment(start, h_pivot=s.h_pivot, gamma=s.gamma, delta_max=s.delta_max)
    low, high = ones * s.tau_min, ones * s.tau_max
    below, above = target <= h(low), target >= h(high)
    for _ in range(halvings):
        middle = (low + high) / 2
        cold = h(middle) < target
        low, high = torch.where(cold, middle, low), torch.where(cold, high, middle)
    return torch.where(below, ones * s.tau_min, torch.where(above, ones * s.tau_max, (low + high) / 2))


RANGES = [(1.1, 1.5), (1.0, 2.0), (0.5, 4.0), (1.0, 8.0)]


@pytest.mark.parametrize(("tau_min", "tau_max"), RANGES)
@quick
@given(st.integers(0, 1000), numbers(1.0, 8.0))
def test_newton_matches_60_bisections_in_float64(tau_min: float, tau_max: float, seed: int, scale: float) -> None:
    """To the float32 rounding of an entropy: where dH/dtau is small the temperature is loose, the entropy is not."""
    s = TemperatureSettings(tau_min=tau_min, tau_max=tau_max, topk=64, low_entropy_guard=None)
    logits = logits_of(seed, tokens=16, vocabulary=300, scale=scale)
    solution, want = solve_logits(logits, s), exact_tau(logits, s)
    reached = [top_k_entropy(logits.double(), s.topk, tau.double()) for tau in (solution.tau, want)]
    torch.testing.assert_close(*reached, rtol=0, atol=5e-6)
    assert (solution.tau >= tau_min - 1e-6).all() and (solution.tau <= tau_max + 1e-6).all()
    inside = (solution.status == FREE) & (solution.entropy > 0.1)
    torch.testing.assert_close(solution.tau[inside].double(), want[inside], rtol=0, atol=2e-4 * tau_max)


def test_statuses() -> None:
    """A uniform token cannot reach its target, a sure one is held, a bimodal one overshoots it at tau_min."""
    logits = torch.zeros(4, 600)
    logits[1, 0] = 40.0
    logits[2] = logits_of(0, tokens=1, vocabulary=600, scale=1.5)
    logits[3, 0] = 7.0
    solution = solve_logits(logits, TemperatureSettings())
    assert solution.status.tolist() == [AT_TAU_MAX, GUARDED, FREE, AT_TAU_MIN]
    assert solution.tau[[0, 1, 3]].tolist() == pytest.approx([1.5, 1.1, 1.1])
    assert top_k_entropy(logits[2:3], 512, solution.tau[2:3]).item() == pytest.approx(
        float(solution.target[2]), abs=1e-5
    )
    fixed = solve_logits(logits, TemperatureSettings(tau_mode="fixed", tau_fixed=1.3))
    assert fixed.tau.tolist() == pytest.approx([1.3] * 4)
    assert solve_logits(logits[:1], TemperatureSettings()).tau.shape == (1,)
    assert solve_logits(logits[:0], TemperatureSettings()).tau.shape == (0,)


@quick
@given(st.integers(0, 1000), numbers(1.0, 12.0), st.integers(2, 60))
def test_top_k_entropy_is_a_lower_bound(seed: int, scale: float, topk: int) -> None:
    logits = logits_of(seed, scale=scale)
    assert (top_k_entropy(logits, topk) <= entropy(logits) + 1e-5).all()


@quick
@given(st.integers(0, 1000), numbers(2.0, 12.0))
def test_guard_is_decided_by_the_full_entropy(seed: int, scale: float) -> None:
    logits = logits_of(seed, tokens=64, scale=scale)
    solution = solve_logits(logits, TemperatureSettings(topk=4, low_entropy_guard=0.3))
    clear = (entropy(logits) - 0.3).abs() > 1e-5
    assert torch.equal((solution.status == GUARDED)[clear], (entropy(logits) <= 0.3)[clear])


# ---- selections, reductions, tables -----------------------------------------------------------------------------


def test_selection_takes_the_highest_entropies() -> None:
    """11 tokens: the 0.8 quantile falls on the 9th smallest exactly, which is kept."""
    values = torch.arange(11.0).flip(0)
    assert baselines.select_top(values, top_fraction=0.2).tolist() == [True] * 3 + [False] * 8
    assert baselines.select_top(values[:0], top_fraction=0.2).shape == (0,)
    assert baselines.select_top(values, top_fraction=1.0).all()


@pytest.mark.parametrize("name", sorted(REDUCTIONS))
@quick
@given(lengths=st.lists(st.integers(1, 9), min_size=8, max_size=8), seed=st.integers(0, 100))
def test_reductions_do_not_see_the_split(name: str, lengths: list[int], seed: int) -> None:
    """1 x 8, 2 x 4 and 4 x 2 sequences give the same sum of weighted losses."""
    losses = [torch.randn(n, generator=torch.Generator().manual_seed(seed + n)) for n in lengths]
    micro = [sum(lengths[start : start + 2]) for start in range(0, 8, 2)]
    totals = Totals(tokens=sum(lengths), sequences=8, max_length=9, micro_batches=micro, micro_rows=2)
    sums = []
    for size in (8, 4, 2):
        total = torch.zeros(())
        for start in range(0, 8, size):
            part = losses[start : start + size]
            sequence = torch.cat([torch.full((len(x),), i) for i, x in enumerate(part, start)])
            total = total + (torch.cat(part) * REDUCTIONS[name](sequence, totals)).sum()
        sums.append(total)
    torch.testing.assert_close(torch.stack(sums), sums[0].expand(3), rtol=1e-5, atol=1e-6)
    if name == "micro_token_mean":
        means = torch.stack([torch.cat(losses[start : start + 2]).mean() for start in range(0, 8, 2)])
        torch.testing.assert_close(sums[0], means.mean(), rtol=1e-5, atol=1e-6)


def test_reductions_of_nothing() -> None:
    for reduce in REDUCTIONS.values():
        assert reduce(torch.zeros(0, dtype=torch.int64), Totals(0, 0)).shape == (0,)


def test_parameters_are_the_keyword_arguments() -> None:
    def mine(rows: TokenRows, *, power: float = 2.0) -> TokenLoss:
        return TokenLoss((-rows.logp) ** power)

    objective = Objective(mine)
    assert objective_parameters(objective)["power"].default == 2.0
    assert objective_parameters(objective)["power"].annotation is float
    bound = objective.bind(power=1.0)
    assert float(bound.fn(TokenRows(torch.tensor([-3.0]), torch.tensor([0]))).terms[0]) == 3.0
    with pytest.raises(TypeError, match=r"powr.*legal.*power"):
        objective.bind(powr=1.0)


def test_objectives_leave_torch_out() -> None:
    bind = "[x.bind() for table in (o.SFT_OBJECTIVES, o.RL_OBJECTIVES) for x in table.values()]"
    code = f"import sys, curiosft_cli.objectives as o; {bind}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_papers_listing_stops_half_an_interval_before_the_end() -> None:
    """Clamped targets: Figure 6 searches for the end's entropy; after 15 halvings it is 0.4 / 2^16 short of the end."""
    logits = torch.tensor([[0.0] * 64, [9.0, *[0.0] * 63]])  # flat: tau_max; one clear favourite: tau_min
    listing = solve_logits(
        logits, TemperatureSettings(search="bisect", iters=15, clamp="target", low_entropy_guard=None, h_pivot=9.0)
    )
    ends = solve_logits(logits, TemperatureSettings(search="bisect", iters=15, low_entropy_guard=None, h_pivot=9.0))
    assert ends.tau.tolist() == pytest.approx([1.5, 1.1])
    assert (listing.tau - ends.tau).abs().tolist() == pytest.approx([0.4 / 2**16] * 2, rel=0.05)


def test_searching_in_bfloat16_lands_on_its_grid() -> None:
    """Between 1 and 2 bfloat16 has a step of 1/128; float32 does not land there by chance."""
    logits = 2.0 * torch.randn(64, 400, generator=torch.Generator().manual_seed(0))
    coarse = solve_logits(logits.bfloat16(), TemperatureSettings(search="bisect", search_dtype="logits"))
    fine = solve_logits(logits.bfloat16(), TemperatureSettings(search="bisect"))
    free = fine.status == 0
    assert free.any()
    assert torch.equal(coarse.tau[free], coarse.tau[free].bfloat16().float())
    assert not torch.equal(fine.tau[free], fine.tau[free].bfloat16().float())
