"""Open tokenizers and models, with the context settings of the configuration and errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curiosft_cli.data.records import Problem
from curiosft_cli.run.device import Dtype, resolve_dtype
from curiosft_cli.run.errors import CurioError, hub_refusal
from curiosft_cli.run.hub import use_hub
from curiosft_cli.train.attention import PACKED_SDPA, can_pack, is_packed, register_packed_attention
from curiosft_cli.train.encode import PromptFormat, encode_prompt

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from curiosft_cli.run.sections import Model

Body = Callable[..., "Tensor"]


def load_tokenizer(path: str, settings: Model) -> PreTrainedTokenizerBase:
    """Open the tokenizer of a checkpoint folder or hub id.

    Raises:
        CurioError: there is none, it has no chat template that works or no vocabulary, or it is another model's.
    """
    from transformers import AutoTokenizer

    _check_folder(path)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, **_source(settings))
    except Exception as error:  # transformers and tokenizers raise many kinds on damaged files
        raise hub_refusal(error, path) or CurioError(
            f"cannot open a tokenizer at {path}: {_first_line(error)}", "Name a folder or hub id that has one."
        ) from None
    if not tokenizer.chat_template:
        raise CurioError(
            f"the tokenizer of {path} has no chat template",
            "Take an instruct or chat version, or add a template to it.",
        )
    encode_prompt(tokenizer, Problem("?", "?", "?"), PromptFormat.from_config(settings))  # a template that loops stops
    check_vocabulary(tokenizer, path)
    _check_ids(tokenizer, path, settings)
    return tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, name: str, probe: str = "Let x = 1.") -> None:
    """Refuse a tokenizer that turns text into nothing: transformers opens one where the vocabulary is missing.

    Raises:
        CurioError: it has no tokens for `probe`.
    """
    ids: list[int] = tokenizer.encode(probe, add_special_tokens=False)
    if not ids or set(ids) <= {tokenizer.unk_token_id}:
        raise CurioError(f"the tokenizer of {name} has no vocabulary", "Restore its files, or download it again.")


def _check_ids(tokenizer: PreTrainedTokenizerBase, path: str, settings: Model) -> None:
    """Refuse the tokenizer of another model: the embedding has no rows for its last ids."""
    try:
        rows = getattr(load_config(path, settings).get_text_config(), "vocab_size", None)
    except CurioError:
        return  # a folder may have a tokenizer alone; who needs the model says that there is none
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if rows is not None and highest >= rows:
        raise CurioError(
            f"the tokenizer of {path} has ids up to {highest}, the model {rows} embeddings",
            "Take the tokenizer that belongs to the model.",
        )


def load_model(
    path: str,
    settings: Model,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    products: torch.dtype | None = None,
    compiled: bool = False,
    empty: bool = False,
) -> PreTrainedModel:
    """Open a causal language model in main memory with weights in `dtype`, context and RoPE base as configured.

    Args:
        device: where it will run. This, `products` (None is `dtype`) and `compiled` decide which attention `auto` is.
        empty: without values, on the meta device: another process will send them.

    Raises:
        CurioError: there is no model that transformers can open.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # of reading shards; downloads show their own
    _check_folder(path)
    try:
        config = load_config(path, settings)
        attention = _attention(settings.attention, device, products or dtype, config, compiled)
        how: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
        if empty:
            with init_empty_weights(include_buffers=False):
                model: Any = AutoModelForCausalLM.from_config(
                    config, trust_remote_code=settings.trust_remote_code, **how
                )
            model.tie_weights()
            return model
        opened: Any = AutoModelForCausalLM.from_pretrained(
            path, config=config, output_loading_info=True, use_safetensors=True, **how, **_source(settings)
        )
    except CurioError:
        raise
    except Exception as error:  # transformers and safetensors raise many kinds on damaged files
        raise hub_refusal(error, path) or CurioError(
            f"cannot open a model at {path}: {_first_line(error)}",
            "Name a folder or hub id of a causal language model.",
        ) from None
    model, found = opened
    if missing := sorted(found["missing_keys"]):
        raise CurioError(
            f"the weights at {path} lack {len(missing)} tensors of the model, e.g. {missing[0]}: they would be random",
            "Download the model again, or correct its config.json.",
        )
    return model


def load_config(path: str, settings: Model) -> Any:
    """The model's transformers configuration with `model.max_position_embeddings` and `model.rope_theta` applied.

    Raises:
        CurioError: there is none, or it is damaged.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, **_source(settings), **context_overrides(path, settings))
    except Exception as error:  # transformers raises many kinds on a damaged file
        raise hub_refusal(error, path) or CurioError(
            f"cannot read the configuration of {path}: {_first_line(error)}",
            "Name a folder or hub id of a causal language model.",
        ) from None


def context_overrides(path: str, settings: Model) -> dict[str, Any]:
    """Configuration keys that differ from the checkpoint's own, for transformers and for vLLM's `hf_overrides`."""
    overrides: dict[str, Any] = {}
    if settings.max_position_embeddings is not None:
        overrides["max_position_embeddings"] = settings.max_position_embeddings
    if settings.rope_theta is not None:
        from transformers import AutoConfig

        own = AutoConfig.from_pretrained(path, **_source(settings))
        overrides["rope_parameters"] = {**(own.rope_parameters or {}), "rope_theta": settings.rope_theta}
    return overrides


def check_context(path: str, settings: Model, needed: int) -> int:
    """Return `needed` tokens of context, or say how to get them.

    Raises:
        CurioError: the model's context is shorter, or there is no model.
    """
    _check_folder(path)
    limit = getattr(load_config(path, settings), "max_position_embeddings", None)
    if limit is not None and needed > limit:
        raise CurioError(
            f"the longest prompt and completion need {needed} tokens, the context of {path} is {limit}",
            "Lower max_completion_length; or take a checkpoint made for a longer context; or set "
            "model.max_position_embeddings and model.rope_theta (Qwen2.5-Math-7B: 16384 and 40000).",
        )
    return needed


def body_and_head(model: PreTrainedModel) -> tuple[Body, nn.Parameter]:
    """The transformer without its head, and the head's weight [V, H].

    The first is called with `input_ids` and `position_ids` [1, T], and `packed_lengths` where several rows share T,
    and gives the last hidden states [1, T, H] after the final norm.
    """
    head: Any = model.get_output_embeddings()
    return partial(_hidden, model.get_decoder()), head.weight


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The transformer's layers, as the model itself names their class.

    Raises:
        CurioError: it names none.
    """
    names = set(model._no_split_modules or ())
    if found := [module for module in model.modules() if type(module).__name__ in names]:
        return found
    raise CurioError(
        f"{type(model).__name__} does not say which of its modules are layers",
        "Train it with launch.shard=none, without compile.",
    )


def _hidden(decoder: Any, *, packed_lengths: Sequence[int | Sequence[int]] | None = None, **inputs: Any) -> Tensor:
    if is_packed(decoder.config._attn_implementation):
        inputs["packed_lengths"] = packed_lengths or (inputs["input_ids"].shape[1],)
    # With a cache transformers would not see that positions restart, and packed rows would read each other.
    return decoder(**inputs, use_cache=False).last_hidden_state


def compute_dtype(precision: Dtype, device: torch.device | str) -> torch.dtype:
    """The dtype of the large products: `auto` is bfloat16 where the hardware multiplies it natively."""
    import torch

    return getattr(torch, resolve_dtype(precision, device))


def name_of(dtype: torch.dtype) -> Literal["float32", "bfloat16"]:
    """How engines and logs call a dtype of products."""
    import torch

    return "bfloat16" if dtype == torch.bfloat16 else "float32"


def _attention(name: str, device: torch.device | str, products: torch.dtype, config: Any, compiled: bool) -> str:
    """`auto`: FlashAttention where it is installed and can multiply, else row by row, else SDPA with a mask.

    Row by row is SDPA, or on a CPU whose products are in bfloat16 the attention that is made for them.
    """
    import torch
    from transformers.utils import is_flash_attn_2_available

    from curiosft_cli.train.cpu_attention import register_cpu_attention

    if name not in ("auto", PACKED_SDPA):
        return name
    kind = torch.device(device).type
    flash = kind == "cuda" and products != torch.float32 and is_flash_attn_2_available()
    if name == "auto" and flash:
        return "flash_attention_2"
    if not can_pack(config) or compiled:  # a compiled graph would be made anew for every set of row lengths
        return "sdpa"
    on_cpu = name == "auto" and kind == "cpu" and products == torch.bfloat16
    return register_cpu_attention() if on_cpu else register_packed_attention()


def _source(settings: Model) -> dict[str, Any]:
    return {"trust_remote_code": settings.trust_remote_code, "revision": settings.revision}


def _check_folder(path: str) -> None:
    looks_local = path.startswith(("/", "./", "../", "~")) or path.count("/") > 1
    if looks_local and not Path(path).is_dir():
        raise CurioError(f"there is no model folder {path}", "Check model.path or the checkpoint reference.")
    if not Path(path).is_dir():
        use_hub()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
