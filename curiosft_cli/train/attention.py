"""Attention within packed rows without FlashAttention: SDPA row by row, so no [T, T] mask and no wasted products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKED_SDPA = "packed_sdpa"
"""Name under which transformers knows `packed_attention`."""


def register_packed_attention() -> str:
    """Make `packed_attention` known to transformers; returns its name. No mask is built for an unknown name."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED_SDPA, packed_attention)
    return PACKED_SDPA


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_lengths: Sequence[int] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each row of a pack to itself.

    Args:
        query: [1, heads, T, d]; `key` and `value` alike, with the key-value heads.
        attention_mask: a mask that says everything itself, or none.
        packed_lengths: tokens of each row, in order; required without a mask.

    Returns:
        [1, T, heads, d].

    Raises:
        ValueError: neither mask nor lengths arrived here, so rows would read each other.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if packed_lengths is None or sum(packed_lengths) != query.shape[2]:
        raise ValueError(
            f"packed attention over {query.shape[2]} tokens was told of rows of {packed_lengths} tokens: this model "
            "does not hand its arguments on to its attention; set model.attention=sdpa"
        )
    lengths = list(packed_lengths)
    parts = [
        sdpa_attention_forward(module, q, k, v, None, **options)[0]
        for q, k, v in zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=1), None


def can_pack(config: Any) -> bool:
    """Whether every layer attends to everything before it: windows and chunks need a mask of their own."""
    layers = getattr(config, "layer_types", None)
    if layers:
        return set(layers) == {"full_attention"}
    return getattr(config, "sliding_window", None) is None and getattr(config, "attention_chunk_size", None) is None
