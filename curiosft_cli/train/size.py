"""How large a model is and what training holds all the time, from the model's configuration alone."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.device import GIB, main_memory
from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.shards import shard_kind

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from curiosft_cli.run.sections import Config, Training

FLOAT32, BFLOAT16 = 4, 2
MOMENTS = 2
"""Of AdamW, for each parameter."""


@dataclass(frozen=True)
class Size:
    """Numbers of parameters.

    Attributes:
        layer: of one layer.
        layers: how many layers.
        rest: embedding, last norm and head; a tied head counts once.
        embedding: of the embedding.
    """

    layer: int
    layers: int
    rest: int
    embedding: int = 0

    @property
    def all(self) -> int:
        """Of the whole model."""
        return self.layer * self.layers + self.rest


def model_size(shape: Any) -> Size:
    """The size of the model of a transformers configuration. One and two layers are built, without memory."""
    text = shape.get_text_config()
    one, two = (count_parameters(with_layers(shape, few)) for few in (1, 2))
    return Size(two - one, text.num_hidden_layers, 2 * one - two, text.vocab_size * text.hidden_size)


def count_parameters(shape: Any) -> int:
    """Parameters of the model of a transformers configuration; a tied head counts once. Nothing is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
    return sum(parameter.numel() for parameter in model.parameters())


def with_layers(shape: Any, few: int) -> Any:
    """A configuration with another number of layers; what it says about each layer is cut or repeated."""
    smaller = copy.deepcopy(shape)
    text = smaller.get_text_config()
    layers = text.num_hidden_layers
    for name, value in vars(text).items():
        if isinstance(value, list) and len(value) == layers:
            setattr(text, name, [value[layer % layers] for layer in range(few)])
    text.num_hidden_layers = few
    return smaller


def held_always(size: Size, settings: Training) -> dict[str, int]:
    """Bytes by term that training cannot do without, of the whole model: a lower bound, whatever the batch is.

    Neither a teacher nor activations are in it. With adapters only the weights are: their own state is small.
    """
    terms = {"weights": size.all * FLOAT32}
    if settings.lora.rank:
        return terms
    return terms | {"gradients": size.all * FLOAT32, "optimizer": size.all * MOMENTS * FLOAT32}


def check_memory(config: Config, settings: Training, shape: Any, accelerator: Accelerator) -> None:
    """Refuse what cannot fit, before anything is loaded. What passes may still be too large: activations come on top.

    Args:
        config: of the run.
        settings: `[sft]` or `[rl]`.
        shape: transformers configuration of the model.
        accelerator: knows the device and the processes.

    Raises:
        CurioError: see above.
    """
    on_cpu = accelerator.device.type == "cpu"
    if config.launch.offload and not on_cpu:
        return
    try:
        size = model_size(shape)
    except Exception:  # a kind of model that only its own code can build; opening it says what is wrong, if anything
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    kind, ranks = shard_kind(config.launch, accelerator.num_processes), accelerator.num_processes
    sharers = {"full": ranks, "hybrid": here}.get(kind or "", 1)
    terms = {name: held / sharers for name, held in held_always(size, settings).items()}
    needed, there = sum(terms.values()), device_memory(accelerator.device) / (here if on_cpu else 1)
    if needed <= there:
        return
    largest = max(terms, key=lambda name: terms[name])
    fix = "Take a smaller model" if on_cpu else "Train on more GPUs with launch.shard=full, set launch.offload=true"
    stage = type(settings).__name__.lower()
    lora = "" if settings.lora.rank else f", or set {stage}.lora.rank=16"
    raise CurioError(
        f"{stage} holds at least {needed / GIB:.1f} GiB in each process, most of it {largest} "
        f"({terms[largest] / GIB:.1f}), and there are {there / GIB:.1f} GiB",
        f"{fix}{lora}; `curiosft plan` shows all terms.",
    )


def device_memory(device: torch.device) -> int:
    """Bytes of memory of an accelerator, or of this machine or container, swap included."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return main_memory().total or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
