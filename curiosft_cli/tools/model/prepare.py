"""`curiosft model prepare`: make a base model ready for long thinking; its weights are copied byte for byte."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import disk_errors, folder_in_one_step, write_json, write_text
from curiosft_cli.run.log import Console
from curiosft_cli.tools.model.source import (
    CONFIG,
    ModelSource,
    configured_stops,
    open_source,
    read_config,
    read_tokenizer,
)
from curiosft_cli.tools.model.template import prepared_template
from curiosft_cli.tools.model.weights import copy_weights, read_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.run.sections import Config

PAD_TOKENS = (
    "<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|endoftext|>", "<|reserved_special_token_0|>",
    "<unk>",
)  # fmt: skip
THINK_TAGS = ("<think>", "</think>")
CARD = "README.md"


@dataclass(frozen=True)
class Change:
    """One line of the model card."""

    what: str
    before: object
    after: object


def prepare_model(name: str, out: Path, config: Config, console: Console) -> list[Change]:
    """Write the prepared model to `out`, complete or not at all; return what was changed.

    Raises:
        CurioError: the model cannot be read or prepared, `out` exists, or it cannot be written.
    """
    _check_target(out, name)
    source = open_source(name, config.model, weights=True)
    model, changes = context_config(read_config(source, config.model), config)
    tokenizer = read_tokenizer(source, config.model)
    samples = _sample_ids(tokenizer)
    changes += _prepare_tokenizer(tokenizer, model, config)
    stops = _stops(tokenizer, source)
    changes.append(Change("stop tokens", stops.before, stops.after))
    with disk_errors(out), folder_in_one_step(out) as folder:
        write_json(folder / CONFIG, model)
        tokenizer.save_pretrained(folder)
        write_json(folder / "generation_config.json", _generation(tokenizer, stops.ids, config))
        read_tensors(source.folder)  # stops at an incomplete file before gigabytes are copied
        size = copy_weights(source.folder, folder, lambda done, of: console.progress(done, of, "bytes copied"))
        if config.model.trust_remote_code:
            for file in source.folder.glob("*.py"):
                shutil.copyfile(file, folder / file.name)
        write_text(folder / CARD, _card(source, config, model, changes, size))
        _prove(folder, samples)
    console.close()
    return changes


def context_config(model: dict[str, Any], config: Config) -> tuple[dict[str, Any], list[Change]]:
    """The configuration with a context for the longest prompt and completion, and what was changed.

    If the settings give no length, the model's own is doubled until it is enough, and the RoPE base is multiplied by
    the same factor: 4096 and 10000 of Qwen2.5-Math-7B become 16384 and 40000.

    Raises:
        CurioError: a longer context is needed and the RoPE is scaled already.
    """
    settings, model = config.model, dict(model)
    rope = dict(model.get("rope_parameters") or model.get("rope_scaling") or {})
    length, theta = int(model.get("max_position_embeddings") or 0), _theta(model)
    wanted, wanted_theta = settings.max_position_embeddings or length, settings.rope_theta or theta
    if settings.max_position_embeddings is None and length:
        while wanted < needed_context(config):
            wanted *= 2
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if wanted > length and kind != "default" and settings.rope_theta is None:
            raise CurioError(
                f"the context of {length} is too short for {needed_context(config)} tokens, and its RoPE is scaled "
                f"already ({kind})",
                "Set model.max_position_embeddings and model.rope_theta, or lower the lengths.",
            )
        if settings.rope_theta is None and theta is not None:
            wanted_theta = theta * wanted / length
    changes = []
    if wanted != length:
        changes.append(Change("max_position_embeddings (tokens)", length or "none", wanted))
        model["max_position_embeddings"] = wanted
    if wanted_theta != theta and wanted_theta is not None:
        changes.append(Change("rope_theta", theta if theta is not None else "none", float(wanted_theta)))
        if model.get("rope_parameters"):
            model["rope_parameters"] = {**model["rope_parameters"], "rope_theta": float(wanted_theta)}
        if "rope_theta" in model or not model.get("rope_parameters"):
            model["rope_theta"] = float(wanted_theta)
    return model, changes


def needed_context(config: Config) -> int:
    """Tokens of the longest prompt and completion of any stage."""
    completion = max(config.sft.max_response_length, config.rl.max_completion_length, config.eval.max_completion_length)
    return config.data.max_prompt_length + completion


def _theta(model: dict[str, Any]) -> float | None:
    found = (model.get("rope_parameters") or {}).get("rope_theta", model.get("rope_theta"))
    return None if found is None else float(found)


def _prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, model: dict[str, Any], config: Config) -> list[Change]:
    """Set template, padding token and length in place; write the padding token into the configuration too."""
    from curiosft_cli.train.encode import end_token_id

    had = "none" if not tokenizer.chat_template else "its own"
    template, markers = prepared_template(tokenizer, config.model)
    tokenizer.chat_template = template
    changes = [Change("chat template", had, f"Table 7 in {markers} markers, the answer opened by the think tag")]
    padding = tokenizer.pad_token
    if padding is None or tokenizer.pad_token_id == end_token_id(tokenizer):
        tokenizer.pad_token = _padding(tokenizer, end_token_id(tokenizer))
        changes.append(Change("padding token", padding or "none", tokenizer.pad_token))
    model["pad_token_id"] = tokenizer.pad_token_id
    length = model.get("max_position_embeddings")
    if length and tokenizer.model_max_length != length:
        shown = tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else "none"
        changes.append(Change("model_max_length of the tokenizer", shown, length))
        tokenizer.model_max_length = length
    return changes


def _padding(tokenizer: PreTrainedTokenizerBase, end: int) -> str:
    """A padding token of the vocabulary that does not end a turn; the end of a text if there is no other.

    Raises:
        CurioError: every special token ends a turn.
    """
    vocabulary = tokenizer.get_vocab()
    known = [token for token in (*PAD_TOKENS, tokenizer.eos_token) if token in vocabulary and vocabulary[token] != end]
    if not known:
        raise CurioError(
            f"the tokenizer of {tokenizer.name_or_path} has no token that may pad",
            f"Take a version with one of {', '.join(PAD_TOKENS)}.",
        )
    return str(known[0])


@dataclass(frozen=True)
class _Stops:
    ids: list[int]
    before: str
    after: str


def _stops(tokenizer: PreTrainedTokenizerBase, source: ModelSource) -> _Stops:
    """All tokens that end a completion; the end of a turn comes first."""
    from curiosft_cli.train.encode import end_token_id, with_known_stops

    own = configured_stops(source)
    if tokenizer.eos_token_id is None:
        raise CurioError(f"the tokenizer of {source.name} has no end token", "Take a version that has one.")
    first = end_token_id(tokenizer)
    ids = [first, *(token for token in with_known_stops(tokenizer, own) if token != first)]

    def names(of: list[int]) -> str:
        return ", ".join(str(tokenizer.convert_ids_to_tokens(token)) for token in of) or "none"

    return _Stops(ids, names(own or []), names(ids))


def _generation(tokenizer: PreTrainedTokenizerBase, stops: list[int], config: Config) -> dict[str, Any]:
    """Sampling as in evaluation, for servers without settings. Top-k is off: libraries set it to 50 or 20."""
    bos = {} if tokenizer.bos_token_id is None else {"bos_token_id": tokenizer.bos_token_id}
    return {
        **bos,
        "eos_token_id": stops,
        "pad_token_id": tokenizer.pad_token_id,
        "do_sample": True,
        "temperature": config.eval.temperature,
        "top_p": config.eval.top_p,
        "top_k": 0,
    }


def _sample_ids(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    texts = ["Let $x^2 = 2$.\n\nThen \\boxed{\\sqrt{2}}", "<think>\nHm, 12345 − 678?\n</think>", "中文 é 😀\t "]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def _prove(folder: Path, samples: list[list[int]]) -> None:
    """Check that the saved tokenizer gives the same tokens as the original."""
    from transformers import AutoTokenizer

    again: Any = AutoTokenizer.from_pretrained(folder)
    if _sample_ids(again) != samples:
        raise RuntimeError("the saved tokenizer gives other tokens than the original")


def _check_target(out: Path, name: str) -> None:
    if out.exists() and Path(name).exists() and out.samefile(name):
        raise CurioError(f"--out {out} is the model itself", "Name another folder.")
    if out.exists():
        raise CurioError(f"{out} exists already", "Remove it, or name another folder.")


def _card(source: ModelSource, config: Config, model: dict[str, Any], changes: list[Change], weight_bytes: int) -> str:
    """The model card: where the model comes from, and what was changed."""
    from curiosft_cli import __version__

    cells = [[str(cell).replace("|", r"\|") for cell in (row.what, row.before, row.after)] for row in changes]
    rows = "\n".join(f"| {what} | {before} | {after} |" for what, before, after in cells)
    tied = "tied to the embedding" if model.get("tie_word_embeddings") else "as stored (not tied by the configuration)"
    name = Path(source.name).name if Path(source.name).is_dir() else source.name
    revision = f" (revision {config.model.revision})" if config.model.revision else ""
    return f"""# {name}, prepared for long thinking

Made by `curiosft model prepare` (curiosft {__version__}) from `{name}`{revision}. The licence of the original applies.

| what | before | after |
|---|---|---|
{rows}

* Weights: copied byte for byte, shard by shard ({weight_bytes / 1e9:.2f} GB); the output head is {tied}.
* A question without a system message becomes the training prompt (Table 7 of arXiv 2602.02244), and the prompt
  opens the thought: completions begin inside it and close it with `</think>`.
* Generation settings are those of evaluation: temperature {config.eval.temperature}, top-p {config.eval.top_p}.
"""
