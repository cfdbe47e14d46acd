"""How large a model is, from its configuration alone."""

from __future__ import annotations

from typing import Any


def count_parameters(shape: Any) -> int:
    """Parameters of the model of a transformers configuration; a tied head counts once. Nothing is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
    return sum(parameter.numel() for parameter in model.parameters())
