"""Attention of short rows in bfloat16 on CPU, against the definition in float64 and against torch's own kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, LlamaConfig

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.train import attention, cpu_attention, load
from curiosft_cli.train.batches import make_pack
from curiosft_cli.train.cpu_attention import LONGEST, causal_attention
from curiosft_cli.train.encode import Row
from curiosft_cli.train.student import Student


def states(queries: int, keys: int, heads: tuple[int, int], width: int, seed: int = 0) -> list[Tensor]:
    """Query, key and value in bfloat16, and a gradient of the result."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (heads[0], queries, width), (heads[1], keys, width), (heads[1], keys, width), (queries, heads[0], width)
    return [torch.randn(1, *shape, generator=generator).bfloat16() for shape in shapes]


def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(key.shape[2] - query.shape[2])
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True).transpose(1, 2)


def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return causal_attention(query, key, value, query.shape[-1] ** -0.5)


def results(
    attend: Callable[..., Tensor], given_states: list[Tensor], dtype: torch.dtype = torch.bfloat16
) -> list[Tensor]:
    """The output and the gradients with respect to query, key and value, in float64."""
    *leaves, above = (state.to(dtype) for state in given_states)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    out = attend(*leaves)
    return [found.double() for found in (out.detach(), *torch.autograd.grad(out, leaves, above))]


@pytest.mark.parametrize("heads", [(3, 3), (9, 3), (4, 1)])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (2, 2), (300, 300), (40, 700), (129, 257)])
def test_is_the_definition_as_nearly_as_torch_is(queries: int, keys: int, heads: tuple[int, int]) -> None:
    given_states = states(queries, keys, heads, 64)
    exact = results(sdpa, given_states, torch.float64)
    for found, torchs, wanted in zip(results(ours, given_states), results(sdpa, given_states), exact, strict=True):
        assert found.shape == wanted.shape
        length = wanted.norm().clamp(min=1e-3)  # a single key has no gradient in its score
        assert (found - wanted).norm() < max(2 * float((torchs - wanted).norm()), 0.005 * float(length))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 8), st.integers(0, 99))
def test_the_size_of_the_blocks_does_not_matter(queries: int, before: int, block: int, seed: int) -> None:
    given_states = states(queries, queries + before, (4, 2), 8, seed)
    whole = results(ours, given_states)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_attention._blocks, "__defaults__", (1, block, block))
        for found, wanted in zip(results(ours, given_states), whole, strict=True):
            assert (found - wanted).norm() <= 0.01 * wanted.norm() + 1e-3


def test_no_position_reads_what_comes_later() -> None:
    query, key, value, _ = states(200, 200, (4, 2), 16)
    first = ours(query, key, value)
    key[:, :, 150:], value[:, :, 150:] = 7.0, -7.0
    second = ours(query, key, value)
    assert torch.equal(first[:, :150], second[:, :150]) and not torch.equal(first[:, 150:], second[:, 150:])


@pytest.mark.parametrize(
    ("keys", "dtype", "dropout"),
    [(4, torch.bfloat16, 0.1), (4, torch.float32, 0.0), (LONGEST + 1, torch.bfloat16, 0.0)],
)
def test_sdpa_where_it_would_not_be_the_same_or_faster(
    keys: int, dtype: torch.dtype, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(cpu_attention, "causal_attention", lambda *_: taken.append("own"))
    monkeypatch.setattr(cpu_attention, "causal_sdpa", lambda *_, **__: taken.append("sdpa"))
    short = [state[:, :, :4] for state in states(4, 4, (2, 2), 8)[:3]]
    cpu_attention.causal_on_cpu(nn.Identity(), *short, scaling=1.0)
    long = [state.to(dtype) for state in states(keys, keys, (2, 2), 8)[:3]]
    cpu_attention.causal_on_cpu(nn.Identity(), *long, scaling=1.0, dropout=dropout)
    assert taken == ["own", "sdpa"]


def test_auto_takes_it_for_bfloat16_products_on_a_cpu() -> None:
    chosen = [
        load._attention(name, device, dtype, LlamaConfig(), compiled)
        for name, device, dtype, compiled in (
            ("auto", "cpu", torch.bfloat16, False),
            ("auto", "cpu", torch.float32, False),
            ("packed_sdpa", "cpu", torch.bfloat16, False),
            ("auto", "cpu", torch.bfloat16, True),
        )
    ]
    assert chosen == ["packed_cpu", "packed_sdpa", "packed_sdpa", "sdpa"]


def test_a_packed_model_takes_it_and_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packed rows under bfloat16 products: the loss and gradients that torch's kernel gives, within bfloat16."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.register_packed_attention())
    student = Student(model, chunk=64, compute_dtype=torch.bfloat16)
    pack = make_pack([Row((5, 6, 7), (8, 9, 10, 11)), Row((3, 4), (5, 6, 7))], [0, 1], "cpu")
    taken: list[int] = []

    def counted(query: Tensor, *others: Any) -> Tensor:
        taken.append(query.shape[2])
        return causal_attention(query, *others)

    monkeypatch.setattr(cpu_attention, "causal_attention", counted)

    def trained(name: str) -> tuple[float, Tensor]:
        model.set_attn_implementation(name)
        student.zero_grad()
        loss, _ = student(pack, SFT_OBJECTIVES["sft"].bind(), {}, torch.full((len(pack.labels),), 1 / 7))
        loss.backward()
        return float(loss.detach()), torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])

    loss, gradient = trained(cpu_attention.register_cpu_attention())
    assert taken == [7, 5, 7, 5]
    wanted, wanted_gradient = trained(attention.register_packed_attention())
    assert len(taken) == 4
    assert loss == pytest.approx(wanted, rel=1e-3)
    assert (gradient - wanted_gradient).norm() < 0.02 * wanted_gradient.norm()
