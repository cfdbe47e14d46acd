"""Where a model comes from: a folder, a hub id, or a GGUF file; and its configuration as it lies there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.errors import MISSING, CurioError, hub_refusal
from curiosft_cli.tools.model.gguf_source import check_gguf, stored_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.run.sections import Model

CONFIG = "config.json"
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
WEIGHTS = ("*.safetensors",)


@dataclass(frozen=True)
class ModelSource:
    """An opened source.

    Attributes:
        name: as the user gave it.
        folder: where the files lie.
        gguf: the GGUF file, where it is one.
    """

    name: str
    folder: Path
    gguf: Path | None = None


def open_source(name: str, settings: Model, *, weights: bool) -> ModelSource:
    """Find the model; a hub id is downloaded (without its weights if these are not asked for).

    Raises:
        CurioError: it does not exist, has no configuration, or is out of reach (exit code 3).
    """
    path = Path(name).expanduser()
    if path.suffix == ".gguf" or (path.is_dir() and not (path / CONFIG).exists() and any(path.glob("*.gguf"))):
        return ModelSource(name, path.parent if path.is_file() else path, _gguf_file(path))
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise CurioError(f"{path} is not a model folder: it has no {CONFIG}", "Name the folder that has one.")
        return ModelSource(name, path)
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        what = "a file" if path.exists() else "nothing"
        raise CurioError(
            f"expected a model at {name}, found {what}", "Give a folder, a hub id OWNER/NAME, or a .gguf file."
        )
    return ModelSource(name, _download(name, settings, (*SMALL_FILES, *WEIGHTS) if weights else SMALL_FILES))


def read_config(source: ModelSource, settings: Model) -> dict[str, Any]:
    """The source's `config.json`.

    Raises:
        CurioError: it is not JSON, describes no model that transformers knows, or asks for code of its own while
            `model.trust_remote_code` is off.
    """
    if source.gguf is not None:
        from curiosft_cli.tools.model.gguf_source import gguf_config

        return gguf_config(source.gguf)
    file = source.folder / CONFIG
    config = read_object(file)
    if "model_type" not in config:
        raise CurioError(f"{file} describes no model: it has no model_type", "Name a causal language model.")
    if config.get("auto_map") and not settings.trust_remote_code:
        raise CurioError(
            f"{source.name} brings Python code of its own (auto_map in {CONFIG})",
            "Read that code first, then set model.trust_remote_code=true; or take a model that transformers knows.",
        )
    from transformers import CONFIG_MAPPING

    if not config.get("auto_map") and config["model_type"] not in CONFIG_MAPPING:
        raise CurioError(
            f"{file}: transformers knows no model_type {config['model_type']!r}", "Name a causal language model."
        )
    for key in ("max_position_embeddings", "vocab_size"):
        if config.get(key) is not None and not isinstance(config[key], int):
            raise CurioError(f"{file}: {key} is {config[key]!r}, expected a whole number", "Download the model again.")
    return config


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        CurioError: it holds something else.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CurioError(f"cannot read {file}: {error}", "Download the model again.") from None
    if not isinstance(value, dict):
        raise CurioError(f"{file} holds a {type(value).__name__}, expected an object", "Download the model again.")
    return value


def configured_stops(source: ModelSource) -> list[int] | None:
    """The end tokens of the source's generation settings; None where it has none.

    Raises:
        CurioError: these cannot be read.
    """
    file = source.folder / "generation_config.json"
    stops = read_object(file).get("eos_token_id") if file.exists() else None
    if stops is None:
        return None
    listed = stops if isinstance(stops, list) else [stops]
    if not all(isinstance(token, int) for token in listed):
        raise CurioError(f"{file}: eos_token_id is {stops!r}, expected token ids", "Download the model again.")
    return listed


def read_tokenizer(source: ModelSource, settings: Model, probe: str = "Let x = 1.") -> PreTrainedTokenizerBase:
    """The source's tokenizer, with or without a chat template.

    Raises:
        CurioError: there is none, or it cannot even read `probe`.
    """
    from transformers import AutoTokenizer

    where = {"gguf_file": source.gguf.name} if source.gguf else {}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            source.folder, trust_remote_code=settings.trust_remote_code, **where
        )
    except (
        Exception
    ) as error:  # transformers and tokenizers raise many kinds; each means that the files are no tokenizer
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CurioError(f"cannot open a tokenizer at {source.name}: {reason}", "Name a model that has one.") from None
    if source.gguf is not None:
        tokenizer = _without_strays(tokenizer, stored_tokens(source.gguf))
    # Where the vocabulary is missing transformers gives one that knows the special tokens only.
    ids = tokenizer.encode(probe, add_special_tokens=False)
    if not ids or set(ids) <= {tokenizer.unk_token_id}:
        raise CurioError(f"the tokenizer of {source.name} has no vocabulary", "Download the model again.")
    tokenizer.name_or_path = source.name
    return tokenizer


def _without_strays(tokenizer: Any, stored: int) -> Any:
    """The tokenizer without tokens that transformers' reader of GGUF puts behind those of the file.

    They have no row in the embedding.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in backend["added_tokens"] if token["id"] < stored]
    if len(kept) == len(backend["added_tokens"]):
        return tokenizer
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    special = {name: getattr(tokenizer, name) for name in names if _is_stored(tokenizer, name, stored)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend | {"added_tokens": kept})),
        chat_template=tokenizer.chat_template,
        **special,
    )


def _is_stored(tokenizer: Any, name: str, stored: int) -> bool:
    token = getattr(tokenizer, f"{name}_id")
    return token is not None and token < stored


def _gguf_file(path: Path) -> Path:
    files = [path] if path.suffix == ".gguf" else sorted(path.glob("*.gguf"))
    if len(files) != 1:
        raise CurioError(
            f"{path} has {len(files)} GGUF files ({', '.join(file.name for file in files[:3])} ...)",
            "Name one of them.",
        )
    if not files[0].is_file():
        raise CurioError(f"there is no file {files[0]}", "Check the path.")
    check_gguf(files[0])
    return files[0]


def _download(name: str, settings: Model, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils import OfflineModeIsEnabled

    try:
        folder = snapshot_download(name, revision=settings.revision, allow_patterns=list(patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        if (refusal := hub_refusal(error, name)) is not None:
            raise refusal from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CurioError(
            f"cannot get {name} from the hub: {reason}", "Check the name and the network, or give a folder.", MISSING
        ) from error
    return Path(folder)
