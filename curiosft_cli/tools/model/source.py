"""Open a model from a folder or the hub, and read its configuration, stop tokens and tokenizer unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.errors import MISSING, CurioError, hub_refusal
from curiosft_cli.run.files import check_all_regular, read_json
from curiosft_cli.run.hub import use_hub
from curiosft_cli.run.text import shortened

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.run.sections import Model

CONFIG = "config.json"
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
WEIGHTS = ("*.safetensors",)


@dataclass(frozen=True)
class ModelSource:
    """A model on this machine.

    Attributes:
        name: its name as the user gave it.
        folder: the folder of its files.
    """

    name: str
    folder: Path


def open_source(name: str, settings: Model, *, weights: bool) -> ModelSource:
    """Find the model; a hub id is downloaded, with its weights or without.

    Raises:
        CurioError: it does not exist, has no configuration, or is out of reach (exit code 3).
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise CurioError(f"{path} is not a model folder: it has no {CONFIG}", "Name the folder that has one.")
        check_all_regular(path)
        return ModelSource(name, path)
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        what = "a file" if path.exists() else "nothing"
        raise CurioError(
            f"expected a model at {name}, found {what}",
            "Give a folder or a hub id OWNER/NAME, with safetensors weights.",
        )
    return ModelSource(name, _download(name, settings, (*SMALL_FILES, *WEIGHTS) if weights else SMALL_FILES))


def read_config(source: ModelSource, settings: Model) -> dict[str, Any]:
    """The source's `config.json`.

    Raises:
        CurioError: as in `plain_config`, or transformers does not know the model.
    """
    config = plain_config(source, settings)
    from transformers import CONFIG_MAPPING

    if not config.get("auto_map") and config["model_type"] not in CONFIG_MAPPING:
        raise CurioError(
            f"{source.folder / CONFIG}: transformers knows no model_type {config['model_type']!r}",
            "Name a causal language model.",
        )
    return config


def plain_config(source: ModelSource, settings: Model) -> dict[str, Any]:
    """The source's `config.json`, without loading transformers.

    Raises:
        CurioError: it is not JSON, describes no model, or the model needs its own code and `model.trust_remote_code` is
            off.
    """
    file = source.folder / CONFIG
    config = read_object(file)
    if not isinstance(config.get("model_type"), str):
        raise CurioError(f"{file} describes no model: it has no model_type", "Name a causal language model.")
    if config.get("auto_map") and not settings.trust_remote_code:
        raise CurioError(
            f"{source.name} brings Python code of its own (auto_map in {CONFIG})",
            "Read that code first, then set model.trust_remote_code=true; or take a model that transformers knows.",
        )
    if nan := [key for key, value in config.items() if value != value]:
        raise CurioError(f"{file}: {nan[0]} is NaN", "Download the model again.")
    for key in ("max_position_embeddings", "vocab_size"):
        if config.get(key) is not None and not isinstance(config[key], int):
            raise CurioError(f"{file}: {key} is {config[key]!r}, expected a whole number", "Download the model again.")
    return config


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        CurioError: the file is not a JSON object.
    """
    return read_json(file, "Download the model again.")


def configured_stops(source: ModelSource) -> list[int] | None:
    """The end tokens of the source's generation settings; None if it has none.

    Raises:
        CurioError: they cannot be read.
    """
    file = source.folder / "generation_config.json"
    stops = read_object(file).get("eos_token_id") if file.exists() else None
    if stops is None:
        return None
    listed = stops if isinstance(stops, list) else [stops]
    rows = read_object(source.folder / CONFIG).get("vocab_size")
    most = rows if isinstance(rows, int) else 2**63
    if not all(isinstance(token, int) and 0 <= token < most for token in listed):
        raise CurioError(
            f"{file}: eos_token_id is {shortened(stops)}, expected token ids from 0 to {most - 1}",
            "Download the model again.",
        )
    return listed


def read_tokenizer(source: ModelSource, settings: Model) -> PreTrainedTokenizerBase:
    """The source's tokenizer, with or without a chat template.

    Raises:
        CurioError: there is none, or it has no vocabulary.
    """
    from transformers import AutoTokenizer

    from curiosft_cli.train.load import check_vocabulary

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=settings.trust_remote_code)
    except (
        Exception
    ) as error:  # transformers and tokenizers raise many kinds; each means that the files are no tokenizer
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CurioError(f"cannot open a tokenizer at {source.name}: {reason}", "Name a model that has one.") from None
    check_vocabulary(tokenizer, source.name)
    tokenizer.name_or_path = source.name
    return tokenizer


def _download(name: str, settings: Model, patterns: tuple[str, ...]) -> Path:
    use_hub()
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
