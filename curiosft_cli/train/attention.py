"""Attention within packed rows without FlashAttention: SDPA row by row, so no [T, T] mask and no wasted products.

`load.py` chooses between this and `cpu_attention.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKED_SDPA, PACKED_CPU = "packed_sdpa", "packed_cpu"
"""Names under which transformers knows `packed_attention` with SDPA, and with the attention of `cpu_attention.py`."""


def register_packed_attention() -> str:
    """Make `packed_attention` known to transformers; returns its name. No mask is built for an unknown name."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED_SDPA, packed_attention)
    return PACKED_SDPA


def is_packed(name: str) -> bool:
    """Whether the attention of this name reads `packed_lengths`."""
    return name in (PACKED_SDPA, PACKED_CPU)


def causal_sdpa(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Attention [1, T, heads, d] of the last T of L positions to themselves and all before."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    mine, seen = query.shape[2], key.shape[2]
    mask = None
    if mine < seen:
        mask = torch.ones(mine, seen, dtype=torch.bool, device=query.device).tril(seen - mine)[None, None]
    return sdpa_attention_forward(module, query, key, value, mask, **options)[0]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_lengths: Sequence[int | Sequence[int]] | None = None,
    causal: Callable[..., Tensor] = causal_sdpa,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each row of a pack to itself, or of several responses to the prompt they share.

    Args:
        query: [1, heads, T, d]; `key` and `value` alike, with the key-value heads.
        attention_mask: a mask that says everything itself, or None.
        packed_lengths: tokens of each row, in order; (prompt, response, response, ...) for rows that share a prompt,
            where each response reads the prompt and itself. Required without a mask.
        causal: attention of one row, with the arguments and result of `causal_sdpa`.

    Returns:
        [1, T, heads, d].

    Raises:
        ValueError: neither mask nor lengths arrived here: rows would attend to each other.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    lengths = [[part] if isinstance(part, int) else list(part) for part in packed_lengths or ()]
    if sum(map(sum, lengths)) != query.shape[2]:
        raise ValueError(
            f"packed attention over {query.shape[2]} tokens was given rows of {packed_lengths} tokens: this model "
            "does not hand its arguments on to its attention; set model.attention=sdpa"
        )
    ends = [sum(part) for part in lengths]
    parts: list[Tensor] = []
    for (first, *others), *states in zip(
        lengths, *(whole.split(ends, dim=2) for whole in (query, key, value)), strict=True
    ):
        (q, *qs), (k, *ks), (v, *vs) = (whole.split([first, *others], dim=2) for whole in states)
        parts.append(causal(module, q, k, v, **options))
        for own_q, own_k, own_v in zip(qs, ks, vs, strict=True):
            parts.append(causal(module, own_q, torch.cat([k, own_k], dim=2), torch.cat([v, own_v], dim=2), **options))
    return torch.cat(parts, dim=1), None


def can_pack(config: Any) -> bool:
    """Whether every layer attends to everything before it: windows and chunks need a mask of their own."""
    layers = getattr(config, "layer_types", None)
    if layers:
        return set(layers) == {"full_attention"}
    return getattr(config, "sliding_window", None) is None and getattr(config, "attention_chunk_size", None) is None
