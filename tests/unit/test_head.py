"""The chunked head against plain autograd on full logits, and what it promises beyond the numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from curiosft_cli.objectives import RL_OBJECTIVES, SFT_OBJECTIVES, BoundObjective, TokenRows
from curiosft_cli.objectives.temperature import FREE, GUARDED, TemperatureSettings, solve_logits
from curiosft_cli.objectives.tokens import TokenLoss, entropy, label_logp, tempered_logp
from curiosft_cli.train.head.cpu_kernels import CpuKernels, kernels_for
from curiosft_cli.train.head.fused import fused_head
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.kernels import Kernels
from curiosft_cli.train.head.scores import head_logp, teacher_logp

TOKENS, HIDDEN, VOCABULARY = 11, 8, 50
EVERY = [
    pytest.param(objective.bind(**params), id="-".join([name, *map(str, params.values())]))
    for table in (SFT_OBJECTIVES, RL_OBJECTIVES)
    for name, objective in table.items()
    for params in {
        "kl": [{"kl_kind": kind} for kind in ("reverse", "forward", "k3")],
        "gem": [{"gem_h": h} for h in ("logsigmoid", "linear")],
        "entropy_top": [{"denominator": d} for d in ("all", "selected")],
        "deft": [{"focus": focus} for focus in ("concentration", "cayley")],
        "curio_distribution": [{"kl_kind": kind} for kind in ("reverse", "forward")],
        "luffy": [{}, {"entropy_coef": 0.0}],
    }.get(name, [{}])
]


@pytest.fixture(autouse=True, scope="module", params=[Kernels, CpuKernels])
def several_tiles(request: pytest.FixtureRequest) -> Iterator[None]:
    """Three rows of logits at a time, so that chunks here have more than one tile; with the passes of GPU and CPU."""
    with pytest.MonkeyPatch.context() as patch:
        for function in (fused_head, head_logp, teacher_logp):
            tiled = partial(function, kernels=request.param(3 * VOCABULARY))
            patch.setattr(sys.modules[__name__], function.__name__, tiled)
        yield


def problem(seed: int = 0, tokens: int = TOKENS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    labels = torch.randint(VOCABULARY, (tokens,), generator=generator)
    hidden, weight = normal(tokens, HIDDEN), normal(VOCABULARY, HIDDEN)
    return {
        "hidden": hidden,
        "weight": weight,
        "labels": labels,
        "base": hidden + 0.3 * normal(tokens, HIDDEN),
        "weights": torch.rand(tokens, generator=generator) / max(tokens, 1),
        "old": label_logp((hidden + 0.1 * normal(tokens, HIDDEN)) @ weight.t(), labels),
        "advantage": normal(tokens),
        "expert": torch.arange(tokens) % 2 == 0,
        "selected": torch.arange(tokens) % 3 == 0,
        "focus_floor": torch.full((tokens,), 0.2),
        "teacher_tau": 1.1 + 0.4 * torch.rand(tokens, generator=generator),
    }


def extra_of(data: dict[str, Tensor], objective: BoundObjective) -> dict[str, Tensor]:
    given_to = {"teacher_logp": data["old"], "old_logp": data["old"], "ref_logp": data["old"]} | data
    return {name: given_to[name] for name in objective.needs - {"logits", "ref_logits", "entropy"}}


def by_autograd(data: dict[str, Tensor], objective: BoundObjective, temperature: float = 1.0) -> tuple[Tensor, ...]:
    hidden, weight = data["hidden"].clone().requires_grad_(), data["weight"].clone().requires_grad_()
    logits = hidden @ weight.t() / temperature
    base = (data["base"] @ data["weight"].t()).detach()
    rows = TokenRows(
        label_logp(logits, data["labels"]), data["labels"], extra_of(data, objective), entropy(logits), logits, base
    )
    terms = objective.fn(rows).terms
    loss = torch.stack([(term * data["weights"] * (i + 1)).sum() for i, term in enumerate(terms)]).sum()
    return (loss.detach(), *torch.autograd.grad(loss, (hidden, weight)), rows.logp.detach(), entropy(logits).detach())


def by_head(
    data: dict[str, Tensor], objective: BoundObjective, temperature: float = 1.0, **options: Any
) -> tuple[Tensor, ...]:
    hidden, weight = data["hidden"].clone().requires_grad_(), data["weight"].clone().requires_grad_()
    loss, seen = fused_head(
        hidden,
        weight,
        data["labels"],
        objective,
        extra=extra_of(data, objective),
        weights=[data["weights"] * (i + 1) for i in range(len(objective.terms))],
        head_pass=HeadPass(
            entropy=True,
            temperature=temperature,
            reference=(data["base"], data["weight"]) if "ref_logits" in objective.needs else None,
        ),
        **options,
    )
    loss.backward()
    assert hidden.grad is not None and weight.grad is not None and seen.entropy is not None
    return loss.detach(), hidden.grad, weight.grad, seen.logp, seen.entropy


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("objective", EVERY)
def test_equals_autograd_on_full_logits(objective: BoundObjective, temperature: float, chunk: int) -> None:
    data = problem()
    want = by_autograd(data, objective, temperature)
    got = by_head(data, objective, temperature, chunk=chunk)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("objective", EVERY)
def test_bfloat16_products_stay_near_float32(objective: BoundObjective) -> None:
    """bf16 keeps 8 bits: gradients within a few percent of their length, in the parameters' own dtype."""
    data = problem(1)
    want, got = by_head(data, objective), by_head(data, objective, compute_dtype=torch.bfloat16)
    for ours, theirs in zip(got[1:3], want[1:3], strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).norm() < 0.06 * theirs.norm()
    torch.testing.assert_close(got[4], want[4], rtol=0.05, atol=0.05)
    low = {name: value.bfloat16() if name in ("hidden", "weight", "base") else value for name, value in data.items()}
    assert {grad.dtype for grad in by_head(low, objective, compute_dtype=torch.bfloat16)[1:3]} == {torch.bfloat16}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 100), st.integers(1, 40), st.integers(1, 50))
def test_the_chunk_size_does_not_matter(seed: int, tokens: int, chunk: int) -> None:
    data, objective = problem(seed, tokens), SFT_OBJECTIVES["curio"].bind()
    for ours, theirs in zip(by_head(data, objective, chunk=chunk), by_head(data, objective), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", EVERY)
def test_no_tokens_give_a_connected_zero(objective: BoundObjective) -> None:
    loss, by_hidden, by_weight, logp, _ = by_head(problem(tokens=0) | {"entropy": torch.zeros(0)}, objective)
    assert float(loss.detach()) == 0.0 and logp.shape == (0,) and by_hidden.shape == (0, HIDDEN)
    assert by_weight.shape == (VOCABULARY, HIDDEN) and not by_weight.any()


def test_no_tokens_have_empty_rows() -> None:
    data = problem(tokens=0)
    place = data["hidden"], data["weight"], data["labels"]
    assert teacher_logp(*place, TemperatureSettings()).status.dtype == torch.int8
    scored = head_logp(*place, head_pass=HeadPass(entropy=True, top_p=0.9))
    assert scored.entropy is not None and scored.kept_mass is not None
    assert scored.logp.shape == scored.entropy.shape == scored.kept_mass.shape == (0,)


def test_what_comes_from_above_scales_the_gradients_once() -> None:
    data, objective = problem(), SFT_OBJECTIVES["sft"].bind()
    want = by_head(data, objective)
    hidden = data["hidden"].clone().requires_grad_()
    loss, _ = fused_head(hidden, data["weight"], data["labels"], objective, extra={}, weights=data["weights"])
    (loss * -2.5).backward(retain_graph=True)
    torch.testing.assert_close(hidden.grad, -2.5 * want[1])
    with pytest.raises(RuntimeError, match="second forward"):
        loss.backward()


def test_frozen_head_and_no_grad() -> None:
    data, objective = problem(), SFT_OBJECTIVES["sft"].bind()
    arguments: dict[str, Any] = {"extra": {}, "weights": data["weights"]}
    weight = data["weight"].clone().requires_grad_()
    loss, _ = fused_head(data["hidden"], weight, data["labels"], objective, **arguments)
    loss.backward()
    torch.testing.assert_close(weight.grad, by_head(data, objective)[2])
    with torch.no_grad():
        head_pass = HeadPass(entropy=True)
        value, seen = fused_head(data["hidden"], weight, data["labels"], objective, head_pass=head_pass, **arguments)
    assert not value.requires_grad and float(value) == pytest.approx(float(loss.detach()))
    torch.testing.assert_close(seen.entropy, entropy(data["hidden"] @ data["weight"].t()))


def test_tied_head_and_accumulation() -> None:
    """One matrix as embedding and head, gradients of two micro-batches added, equal one batch by autograd."""
    torch.manual_seed(0)
    embedding, body = nn.Embedding(VOCABULARY, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
    tokens, labels = torch.randint(VOCABULARY, (10,)), torch.randint(VOCABULARY, (10,))
    for part in (slice(0, 4), slice(4, 10)):
        hidden = body(embedding(tokens[part]))
        loss, _ = fused_head(
            hidden,
            embedding.weight,
            labels[part],
            SFT_OBJECTIVES["sft"].bind(),
            extra={},
            weights=torch.full((part.stop - part.start,), 0.1),
            chunk=3,
        )
        loss.backward()
    got = [parameter.grad for parameter in (embedding.weight, *body.parameters())]
    logits = body(embedding(tokens)) @ embedding.weight.t()
    want = torch.autograd.grad(-label_logp(logits, labels).mean(), [embedding.weight, *body.parameters()])
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_autocast_does_not_reach_the_head() -> None:
    data, objective = problem(), SFT_OBJECTIVES["curio"].bind()
    want = by_head(data, objective)
    with torch.autocast("cpu", torch.bfloat16):
        got = by_head(data, objective)
    for ours, theirs in zip(got, want, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("topk", [5, 64])
@pytest.mark.parametrize("tau_mode", ["adaptive", "fixed"])
def test_teacher_equals_the_plain_functions(tau_mode: Any, topk: int) -> None:
    data = problem(2, tokens=40)
    chosen = TemperatureSettings(tau_mode=tau_mode, topk=topk, low_entropy_guard=0.2)
    hidden = data["hidden"] * torch.linspace(0.2, 4.0, 40)[:, None]  # unsure to sure
    logits = hidden @ data["weight"].t()
    want = solve_logits(logits, chosen)
    got = teacher_logp(hidden, data["weight"], data["labels"], chosen, chunk=7)
    torch.testing.assert_close(got.tau, want.tau, rtol=0, atol=1e-4)
    torch.testing.assert_close(got.entropy, want.entropy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.target, want.target, rtol=1e-4, atol=1e-5)
    assert torch.equal(got.status, want.status)
    if tau_mode == "adaptive":
        assert len(got.status.unique()) > 2
    by_hand = tempered_logp(logits, got.tau).gather(1, data["labels"][:, None]).squeeze(1)
    torch.testing.assert_close(got.logp, by_hand, rtol=1e-4, atol=1e-5)


def test_self_teacher_is_the_teacher_on_the_same_weights() -> None:
    data, chosen = problem(), TemperatureSettings(topk=5)
    place = data["hidden"], data["weight"], data["labels"]
    teacher, objective = teacher_logp(*place, chosen), SFT_OBJECTIVES["curio"].bind()
    separate = fused_head(*place, objective, extra={"teacher_logp": teacher.logp}, weights=data["weights"])[0]
    head_pass = HeadPass(self_teacher=chosen)
    own, seen = fused_head(*place, objective, extra={}, weights=data["weights"], head_pass=head_pass, chunk=4)
    torch.testing.assert_close(own, separate)
    assert seen.teacher is not None
    torch.testing.assert_close(seen.teacher.logp, teacher.logp)
    assert torch.equal(seen.teacher.status, teacher.status)


def test_teacher_rows_made_in_inference_mode_can_train() -> None:
    data, objective = problem(), RL_OBJECTIVES["grpo"].bind()
    with torch.inference_mode():
        hidden = data["hidden"] * 1.0
        rows = teacher_logp(hidden, data["weight"], data["labels"], TemperatureSettings(topk=5))
        scored = head_logp(hidden, data["weight"], data["labels"])
    weight = data["weight"].clone().requires_grad_()
    loss, _ = fused_head(
        data["hidden"],
        weight,
        data["labels"],
        objective,
        extra={"old_logp": scored.logp, "advantage": rows.logp * 1.0},
        weights=data["weights"],
    )
    loss.backward()
    assert weight.grad is not None and weight.grad.any()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 999),
    st.integers(1, 4000),
    st.integers(1, 600),
    st.booleans(),
    st.sampled_from([-9.0, -1.0, 0.0, 9.0]),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_the_largest_are_exact(seed: int, width: int, size: int, ties: bool, shift: float, dtype: torch.dtype) -> None:
    values = torch.randn(3, width, generator=torch.Generator().manual_seed(seed)) + shift
    values = (values.round() if ties else values).to(dtype)
    before, found = values.clone(), CpuKernels(2 * width).largest(values, size)
    assert torch.equal(found.sort(-1).values, before.float().topk(min(size, width)).values.sort(-1).values)
    assert torch.equal(values, before)


def test_a_tempered_log_probability_is_that_of_divided_logits() -> None:
    """Also of logits whose powers no float32 number holds, and of one no token can have."""
    logits = torch.randn(4, 900, generator=torch.Generator().manual_seed(0)) * 9.0
    logits[1] += 500.0
    logits[2] -= 500.0
    logits[3, ::2] = -math.inf
    labels, tau = torch.tensor([5, 6, 7, 9]), torch.tensor([1.1, 1.3, 1.5, 1.2])
    expected = (logits.double() / tau[:, None]).log_softmax(-1).gather(1, labels[:, None]).squeeze(1)
    got = tempered_logp(logits, tau).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-5)


def test_a_logit_that_is_not_a_number_spoils_its_token() -> None:
    data = problem()
    weight = torch.cat([data["weight"], data["weight"].new_zeros(1, HIDDEN)])
    hidden = data["hidden"].clone()
    hidden[0] = 0.0
    weight[-1, 0] = torch.inf  # times 0
    for dtype in (torch.float32, torch.bfloat16):
        rows = teacher_logp(hidden[:1], weight, data["labels"][:1], TemperatureSettings(topk=5), compute_dtype=dtype)
        assert rows.logp.isnan().all()


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("vocabulary", [50, 3000])
def test_nucleus_mass(vocabulary: int, top_p: float) -> None:
    """The smallest set of most likely tokens that reaches top_p; 3000 flat tokens need more than the quick look."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(6, 4, generator=generator), torch.randn(vocabulary, 4, generator=generator)
    if vocabulary > 512:
        hidden[0] = 0.0
    head_pass = HeadPass(top_p=top_p, temperature=0.8)
    got = head_logp(hidden, weight, torch.zeros(6, dtype=torch.int64), chunk=4, head_pass=head_pass)
    assert got.kept_mass is not None
    for probabilities, mass in zip((hidden @ weight.t() / 0.8).softmax(-1), got.kept_mass, strict=True):
        ordered = probabilities.double().sort(descending=True).values
        kept = int((ordered.cumsum(0) < top_p - 1e-6).sum()) + 1
        assert float(mass) == pytest.approx(float(ordered[:kept].sum()), abs=1e-3 if vocabulary > 50 else 1e-5)


@pytest.mark.parametrize("need", [(), ("entropy",), ("logits",)])
def test_the_walk_gives_the_objective_the_nucleus_mass(need: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(6, 4, generator=generator), torch.randn(50, 4, generator=generator)
    labels = torch.arange(6)
    objective = BoundObjective(
        lambda rows: TokenLoss(rows.logp * rows.extra["kept_mass"]), frozenset(need), ("reduction",), {}
    )
    settings: dict[str, Any] = {"chunk": 4, "head_pass": HeadPass(top_p=0.7, temperature=0.8, entropy=True)}
    _, rows = fused_head(
        hidden.requires_grad_(), weight, labels, objective, extra={}, weights=torch.ones(6), **settings
    )
    scored = head_logp(hidden, weight, labels, **settings)
    assert rows.kept_mass is not None and scored.kept_mass is not None
    torch.testing.assert_close(rows.kept_mass, scored.kept_mass)
    torch.testing.assert_close(rows.loss, scored.logp * scored.kept_mass)
    torch.testing.assert_close(rows.entropy, scored.entropy)


def test_impossible_label_keeps_the_loss_finite() -> None:
    """log pi(y) = -400 is below float32's smallest probability and still exact."""
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[400.0], [0.0]])
    scored = head_logp(hidden, weight, torch.tensor([1]), head_pass=HeadPass(entropy=True))
    assert float(scored.logp) == -400.0
    assert scored.entropy is not None and float(scored.entropy) == 0.0
    loss, _ = fused_head(
        hidden.requires_grad_(),
        weight.requires_grad_(),
        torch.tensor([1]),
        SFT_OBJECTIVES["curio"].bind(),
        extra={"teacher_logp": torch.tensor([-300.0])},
        weights=torch.ones(1),
    )
    loss.backward()
    assert float(loss.detach()) == 400.0 + 0.5 * 100.0**2
    assert weight.grad is not None and weight.grad[:, 0].tolist() == pytest.approx([101.0, -101.0])


def test_the_device_decides_the_kernels() -> None:
    assert type(kernels_for("cpu")) is CpuKernels and type(kernels_for("cuda")) is Kernels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_of_a_cpu_give_the_same_training_step(dtype: torch.dtype) -> None:
    """Sure and unsure tokens, some under the guard; a vocabulary that needs more than the likeliest 512 for 0.9."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 16, generator=generator) * torch.linspace(0.01, 3.0, 40)[:, None]
    weight = torch.randn(3000, 16, generator=generator)
    labels = torch.randint(3000, (40,), generator=generator)
    settings = TemperatureSettings(low_entropy_guard=0.3)
    head_pass = HeadPass(top_p=0.9, entropy=True, self_teacher=settings)
    results: list[list[Any]] = []
    for kernels in (Kernels(), CpuKernels()):
        leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        options: dict[str, Any] = {"chunk": 16, "compute_dtype": dtype, "head_pass": head_pass, "kernels": kernels}
        objective = SFT_OBJECTIVES["curio"].bind()
        loss, seen = fused_head(*leaves, labels, objective, extra={}, weights=torch.ones(40), **options)
        loss.backward()
        assert seen.teacher is not None
        results.append([loss.detach(), *(leaf.grad for leaf in leaves), seen.logp, seen.entropy, seen.kept_mass])
        results[-1] += [seen.teacher.logp, seen.teacher.tau, seen.teacher.status]
    for plain, tuned in zip(*results, strict=True):
        torch.testing.assert_close(tuned, plain, rtol=1e-4, atol=1e-5)
    assert (results[0][-1] == GUARDED).any() and (results[0][-1] == FREE).any()


@pytest.mark.parametrize("name", ["curio", "entropy", "kl"])
@pytest.mark.parametrize("search", ["newton", "bisect"])
def test_no_shape_of_the_plain_kernels_depends_on_a_value(name: str, search: Any) -> None:
    """On fake tensors, which have no values: the teacher, and a training pass with its gradients."""
    chosen, objective = TemperatureSettings(topk=5, search=search), SFT_OBJECTIVES[name].bind()
    with FakeTensorMode():
        hidden, weight = torch.randn(TOKENS, HIDDEN, requires_grad=True), torch.randn(VOCABULARY, HIDDEN)
        labels, weights = torch.zeros(TOKENS, dtype=torch.int64), torch.ones(TOKENS)
        options: dict[str, Any] = {"chunk": 4, "compute_dtype": torch.bfloat16, "kernels": Kernels(3 * VOCABULARY)}
        teacher = teacher_logp(hidden, weight, labels, chosen, **options)
        head_pass = HeadPass(0.7, 0.9, True, (hidden, weight), chosen)
        loss, seen = fused_head(
            hidden, weight, labels, objective, extra={}, weights=weights, head_pass=head_pass, **options
        )
        loss.backward()
        assert hidden.grad is not None and seen.teacher is not None and seen.kept_mass is not None
        assert teacher.tau.shape == seen.teacher.logp.shape == seen.kept_mass.shape == (TOKENS,)
