"""Causal attention of short rows in bfloat16 on CPU, where torch's fused kernel multiplies in float32.

Blocks of queries against the keys they may see: scores and softmax in float32, the other products in bfloat16, nothing
of the size of all scores kept for the backward pass.

Axes: T query positions, L >= T key positions (the queries are the last T), d head size; heads of queries share a
key-value head in groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from curiosft_cli.train.attention import PACKED_CPU, causal_sdpa, packed_attention

LONGEST = 1024
"""Keys up to which this is faster than torch's kernel, which by then skips enough of the masked half."""

PARTS = 3
"""Numbers of 8 bits that together hold one of float32."""


def register_cpu_attention() -> str:
    """Make packed attention with `causal_on_cpu` known to transformers; returns its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED_CPU, partial(packed_attention, causal=causal_on_cpu))
    return PACKED_CPU


def causal_on_cpu(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float,
    dropout: float = 0.0,
    **options: Any,
) -> Tensor:
    """`causal_attention` where it computes what SDPA would, and sooner; else SDPA."""
    if value.dtype == torch.bfloat16 and key.shape[2] <= LONGEST and not dropout:
        return causal_attention(query, key, value, scaling)
    return causal_sdpa(module, query, key, value, scaling=scaling, dropout=dropout, **options)


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention of the last T of L positions to themselves and all before.

    Args:
        query: [1, heads, T, d].
        key: [1, key-value heads, L, d]; `value` alike, in bfloat16: the others are rounded to it.
        scale: of the scores, usually d ** -0.5.

    Returns:
        [1, T, heads, d] bfloat16.
    """
    with torch.autocast("cpu", enabled=False):
        return _Causal.apply(query.to(value.dtype), key.to(value.dtype), value, scale).transpose(1, 2)


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        out, wide = torch.empty_like(query), key[0].float()
        for rows, seen in _blocks(query, key):
            weights = _weights(_grouped(query, rows, key), wide[:, :seen], rows, scale)
            out[0, :, rows] = torch.bmm(weights, value[0, :, :seen]).view_as(out[0, :, rows])
        ctx.save_for_backward(query, key, value, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (by_out,), (query, key, value, out) = upstream, ctx.saved_tensors
        # dP - sum_j P_j dP_j is one product: the two are often nearly equal, and dP is rounded to bfloat16 only after.
        mean = (by_out.float() * out.float()).sum(-1, keepdim=True)
        above_less_mean = torch.cat([by_out, *_in_parts(-mean, value.dtype)], dim=-1)
        value_and_ones = torch.cat([value[0], torch.ones_like(value[0, :, :, :PARTS])], dim=-1).transpose(1, 2)
        by_query, wide = torch.empty_like(query), key[0].float()
        by_key, by_value = (torch.zeros(states.shape[1:], device=states.device) for states in (key, value))
        for rows, seen in _blocks(query, key):
            states, above = _grouped(query, rows, key), _grouped(by_out, rows, key)
            weights = _weights(states, wide[:, :seen], rows, ctx.scale)
            by_value[:, :seen] += torch.bmm(weights.transpose(1, 2), above)
            by_scores = torch.bmm(_grouped(above_less_mean, rows, key), value_and_ones[:, :, :seen])
            by_scores.mul_(weights)
            by_key[:, :seen] += torch.bmm(by_scores.transpose(1, 2), states)
            by_query[0, :, rows] = torch.bmm(by_scores, key[0, :, :seen]).view_as(by_query[0, :, rows])
        by_query, by_key = by_query.mul_(ctx.scale), by_key.mul_(ctx.scale)
        return by_query, by_key.to(key.dtype)[None], by_value.to(value.dtype)[None], None


def _blocks(
    query: Tensor, key: Tensor, scores: int = 2**20, fewest: int = 32, most: int = 128
) -> Iterator[tuple[slice, int]]:
    """Blocks of query positions, and how many keys the last of each block sees; `scores` of them stay in the cache."""
    heads, queries, keys = query.shape[1], query.shape[2], key.shape[2]
    size = min(max(scores // (heads * keys), fewest), most)
    size = math.ceil(queries / math.ceil(queries / size))
    for start in range(0, queries, size):
        end = min(start + size, queries)
        yield slice(start, end), keys - queries + end


def _in_parts(values: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Tensors of `dtype` whose sum is `values`, float32, but for its last bits."""
    for _ in range(PARTS):
        part = values.to(dtype)
        yield part
        values = values - part


def _grouped(states: Tensor, rows: slice, key: Tensor) -> Tensor:
    """[key-value heads, queries of all heads that share it, d] of [1, heads, T, d] at `rows`."""
    return states[0, :, rows].reshape(key.shape[1], -1, states.shape[-1])


def _weights(query: Tensor, key: Tensor, rows: slice, scale: float) -> Tensor:
    """Attention weights in bfloat16 of grouped queries at `rows`, the last of which sees all keys (float32)."""
    scores = torch.bmm(query.float().mul_(scale), key.transpose(1, 2))
    own = rows.stop - rows.start
    later = torch.full((own, own), -math.inf).triu_(1)
    scores.view(-1, own, scores.shape[-1])[:, :, -own:].add_(later)
    return torch.softmax(scores, -1, out=scores).to(query.dtype)
