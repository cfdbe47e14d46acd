"""LoRA adapters (peft) inside the model: only they are trained, copied for the teacher, and saved for resuming.

A checkpoint holds the merged weights, so transformers and vLLM open it as any other; a resumed run takes the base
model from where training started and the adapters from the checkpoint's state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.train.shards import local_shard

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from curiosft_cli.run.sections import Lora
    from curiosft_cli.train.batches import Pack

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
            "sft.lora needs the package peft, which is not installed", "pip install 'curiosft[lora]'", MISSING
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
                f"sft.lora.targets = {list(settings.targets)} fits no layer: {str(error).splitlines()[0]}",
                f"Linear layers of this model: {', '.join(_linear_layers(model))}.",
            ) from None


def merged_weights(model: nn.Module, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The plain model's weights: each base layer plus its adapter, W + (alpha / r) B A, under the plain names.

    Args:
        model: with adapters or without.
        whole: its complete state dict; empty in, empty out.
    """
    layers = _adapted_layers(model)
    if not layers or not whole:
        return dict(whole)
    merged = {name.replace(BASE_LAYER, ""): tensor for name, tensor in whole.items() if ".lora_" not in name}
    for name, layer in layers.items():
        down, up = (whole[f"{name}.lora_{side}.{ADAPTER}.weight"] for side in "AB")
        base = merged[f"{name}.weight"]
        merged[f"{name}.weight"] = base + (layer.scaling[ADAPTER] * (up @ down)).to(base)
    return merged


def plain_state(model: nn.Module, pairs: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    """The pairs of a whole state dict one by one; of a model with adapters all at once, merged."""
    return merged_weights(model, dict(pairs)).items() if _adapted_layers(model) else pairs


class Adapters:
    """The adapters' place in a checkpoint: a supplier that gives nothing and remembers the trained weights."""

    PREFIX = "adapter."

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def supply(self, step: int, packs: Sequence[Pack]) -> list[dict[str, Tensor]]:
        """Nothing: no objective reads them."""
        return [{} for _ in packs]

    def update(self, step: int) -> bool:
        """Nothing to follow."""
        return False

    def state(self, step: int) -> dict[str, Tensor]:
        """This rank's shards of the trained weights."""
        return {f"{self.PREFIX}{name}": local_shard(weight) for name, weight in self._trained()}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for name, weight in self._trained():
            local_shard(weight).copy_(saved[f"{self.PREFIX}{name}"])

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self._model.named_parameters() if weight.requires_grad]


def _adapted_layers(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Last parts of the names of all linear layers except the head."""
    from torch import nn

    head = model.get_output_embeddings()
    found = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    return sorted(found)
