"""A GGUF file as an ordinary model folder: dequantised tensor by tensor, so that memory holds one shard at most."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.errors import CurioError
from curiosft_cli.tools.model.weights import INDEX, SINGLE

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = ("llama", "qwen2", "qwen3")
MAGIC = b"GGUF"
DTYPE = "bfloat16"
"""Of the written weights: what the trainer computes in and vLLM loads; finer than the quantised values."""


def check_gguf(file: Path) -> None:
    """Say whether this is a GGUF file.

    Raises:
        CurioError: it is not.
    """
    with file.open("rb") as stream:
        magic = stream.read(4)
    if magic != MAGIC:
        raise CurioError(f"{file} is not a GGUF file (it begins with {magic!r})", "Download it again.")


def gguf_config(file: Path) -> dict[str, Any]:
    """The transformers configuration that the file's metadata describes.

    Raises:
        CurioError: the architecture is not one of `FAMILIES`, or its RoPE is scaled in a way the file does not tell.
    """
    from transformers import AutoConfig

    reader = _reader(file)
    family = _field(reader, "general.architecture")
    if family not in FAMILIES:
        raise CurioError(
            f"{file} holds a model of architecture '{family}', legal: {', '.join(FAMILIES)}",
            "Take the original safetensors version.",
        )
    if any(tensor.name == "rope_freqs.weight" for tensor in reader.tensors):
        raise CurioError(
            f"{file} scales its RoPE by a table (rope_freqs.weight) that the model's configuration cannot hold",
            "Take the original safetensors version.",
        )
    config: Any = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    if (width := _field(reader, f"{family}.attention.key_length")) is not None:
        config.head_dim = width
    return {**config.to_diff_dict(), "architectures": [_class_name(config)], "dtype": DTYPE}


def stored_tokens(file: Path) -> int:
    """Number of tokens in the file's vocabulary."""
    return len(_field(_reader(file), "tokenizer.ggml.tokens") or ())


def write_gguf_weights(
    file: Path,
    config_folder: Path,
    target: Path,
    progress: Callable[[int, int], None],
    *,
    shard_bytes: int = 2 << 30,
) -> int:
    """Write the weights as safetensors shards of about `shard_bytes`; return the bytes.

    Args:
        file: the GGUF file.
        config_folder: has the `config.json` made from it.
        target: folder of the shards.
        progress: gets tensors done and tensors in all.
        shard_bytes: a shard is closed when the next tensor would pass this.

    Raises:
        CurioError: a tensor that the model needs is missing or has another shape.
    """
    import torch
    from safetensors.torch import save_file

    dtype = getattr(torch, DTYPE)
    shards: list[dict[str, str]] = []
    shard: dict[str, Tensor] = {}
    total = 0

    def close() -> None:
        name = f"shard-{len(shards):05d}"
        save_file(shard, target / name, metadata={"format": "pt"})
        shards.append(dict.fromkeys(shard, name))
        shard.clear()

    for done, (name, tensor, of) in enumerate(_tensors(file, config_folder), start=1):
        tensor = tensor.to(dtype)
        held = sum(other.nbytes for other in shard.values())
        if shard and held + tensor.nbytes > shard_bytes:
            close()
        shard[name] = tensor.contiguous()
        total += tensor.nbytes
        progress(done, of)
    close()
    _name_shards(target, shards, total)
    return total


def _name_shards(target: Path, shards: list[dict[str, str]], total: int) -> None:
    """Give the shards the names that transformers looks for, and an index where there are several."""
    if len(shards) == 1:
        (target / "shard-00000").rename(target / SINGLE)
        return
    weights: dict[str, str] = {}
    for number, shard in enumerate(shards):
        name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (target / f"shard-{number:05d}").rename(target / name)
        weights |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weights.items()))}
    (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _tensors(file: Path, config_folder: Path) -> Iterator[tuple[str, Tensor, int]]:
    """Yield `(name in transformers, float32 tensor, how many in all)`."""
    import torch
    from gguf import MODEL_ARCH_NAMES, dequantize, get_tensor_name_map

    config, expected = _expected(config_folder)
    reader = _reader(file)
    family = _field(reader, "general.architecture")
    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == family)
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    ours = {f"{names.get_name(name.rpartition('.')[0])}.{name.rpartition('.')[2]}": name for name in expected}
    found = {tensor.name for tensor in reader.tensors}
    if missing := sorted(set(ours) - found):
        raise CurioError(f"{file} lacks {len(missing)} tensors, e.g. {missing[0]}", "Download it again.")
    wanted = [tensor for tensor in reader.tensors if tensor.name in ours]
    for stored in wanted:
        name = ours[stored.name]
        array = dequantize(stored.data, stored.tensor_type)
        if family == "llama" and stored.name.endswith(("attn_q.weight", "attn_k.weight")):
            heads = config.num_attention_heads if "attn_q" in stored.name else config.num_key_value_heads
            array = _halves(array, heads)
        if tuple(array.shape) != expected[name]:
            raise CurioError(
                f"{file}: {stored.name} is {list(array.shape)}, the model needs {list(expected[name])}",
                "Take the original safetensors version.",
            )
        yield name, torch.from_numpy(array.copy()), len(wanted)


def _halves(array: Any, heads: int) -> Any:
    """Undo llama.cpp's interleaving: it rotates neighbours [.., 2i, 2i+1], transformers rotates halves [i, i + d/2]."""
    rows, width = array.shape
    return array.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def _expected(config_folder: Path) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The configuration and the shapes of its weights; a tied head is the embedding and not stored."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(config_folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    return config, shapes


def _class_name(config: Any) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type])


def _reader(file: Path) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError) as error:
        raise CurioError(f"{file} is not a whole GGUF file: {error}", "Download it again.") from None


def _field(reader: Any, key: str) -> Any:
    field = reader.fields.get(key)
    return None if field is None else field.contents()
