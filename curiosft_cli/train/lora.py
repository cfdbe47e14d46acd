"""LoRA adapters (peft) inside the model: only they are trained, copied for the teacher, and saved for resuming.

A checkpoint holds the merged weights, so transformers and vLLM open it as any other; a resumed run takes the base
model from where training started and the adapters from the checkpoint's state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.errors import MISSING, CurioError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from curiosft_cli.run.sections import Lora

ADAPTER = "default"
BASE_LAYER = ".base_layer"


def add_adapters(model: PreTrainedModel, settings: Lora, seed: int) -> None:
    """Put adapters on the linear layers that `settings` names and freeze everything else.

    Raises:
        CurioError: peft is not installed (exit code 3), or no layer has such a name.
    """
    import torch

    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise CurioError(
            "lora.rank needs the package peft, which is not installed", "pip install 'curiosft[lora]'", MISSING
        ) from None
    assert settings.rank is not None
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # ty: ignore[invalid-argument-type]  # a float works and is meant
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) if settings.targets else _linear_layers(model),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # every rank starts from the same adapters
        try:
            inject_adapter_in_model(config, model)
        except ValueError as error:
            raise CurioError(
                f"lora.targets = {list(settings.targets)} fits no layer: {str(error).splitlines()[0]}",
                f"Linear layers of this model: {', '.join(_linear_layers(model))}.",
            ) from None


def plain_parts(model: nn.Module) -> dict[str, tuple[Tensor, Any]]:
    """The tensors of the plain model's state dict in the order of their names, each with its adapted layer or None.

    Tied weights are one tensor. Nothing is merged or gathered: `merged` does that for one of them.
    """
    state, layers = model.state_dict(keep_vars=True), _adapted_layers(model)
    plain = {name.replace(BASE_LAYER, ""): name for name in state if ".lora_" not in name}
    return {
        name: (state[plain[name]], layers.get(plain[name].removesuffix(f"{BASE_LAYER}.weight")))
        for name in sorted(plain)
    }


def merged(base: Tensor, layer: Any, whole: Callable[[Tensor], Tensor]) -> Tensor:
    """A weight of the plain model: the base plus its adapter, W + (alpha / r) B A.

    Args:
        base: as `plain_parts` gives it, and so is the adapted `layer`.
        whole: gathers a tensor, and detaches it.
    """
    if layer is None:
        return whole(base)
    down, up = (whole(side[ADAPTER].weight) for side in (layer.lora_A, layer.lora_B))
    weight = whole(base)
    return weight + (layer.scaling[ADAPTER] * (up @ down)).to(weight)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that an optimizer may change, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _adapted_layers(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Last parts of the names of all linear layers except the head."""
    from torch import nn

    head = model.get_output_embeddings()
    found = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    return sorted(found)
