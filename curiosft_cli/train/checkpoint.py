"""Checkpoints that transformers and vLLM open as they are, and a resume that continues bit for bit.

    checkpoint-300/   model.safetensors, config, tokenizer, generation_config
      state/          rank-00000.safetensors: optimizer moments, teacher, random state; state.json: counters;
                      metrics.jsonl up to this step
      COMPLETE        last: the step, and the digest of every file

Under sharding every rank's file holds its shards; what several ranks hold alike is in the file of the first of them
alone. Another number of ranks can continue. No pickle anywhere: a checkpoint cannot run code.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.device import GIB
from curiosft_cli.run.digests import STATE, digest_marker
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.files import disk_errors, folder_in_one_step, partial_path, read_json, write_json
from curiosft_cli.run.rundir import TRAINER_STATE
from curiosft_cli.train.encode import with_known_stops
from curiosft_cli.train.lora import trained
from curiosft_cli.train.saved_state import SavedState, rank_file
from curiosft_cli.train.shards import full_weights, local_shard, shards_of

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

METRICS = "metrics.jsonl"
MODEL_CARD = "README.md"
OWN = "own."
"""Begins the names of tensors that differ between ranks even where these hold the same weights."""

OTHER_VERSION = "Continue with the version that wrote it, or use --fresh to start this stage over."
_OF_ONE_RANK = (OWN, "rng.")


def save_checkpoint(
    target: Path,
    *,
    accelerator: Accelerator,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    optimizer: Optimizer,
    tensors: Mapping[str, Tensor],
    counters: Mapping[str, Any],
    score: float | None = None,
    metrics: Path | None = None,
) -> None:
    """Write `target` in one step. Every rank calls this; each writes its own part of the state.

    Args:
        target: the checkpoint folder.
        model: the unwrapped student.
        tensors: what else this rank needs to continue, by name (the teacher's weights); see `OWN`.
        counters: numbers that the stage needs to continue (JSON values).
        score: of the evaluation of these weights, if there was one.
        metrics: metrics.jsonl up to this step; a copy is kept, so that a resumed run has every line.

    Raises:
        CurioError: exit code 4 when the disk has too little space. This is checked before anything is written. A quota
            may show only while files are written; then no checkpoint is left.
    """
    weights = full_weights(model, keep=accelerator.is_main_process)
    kept, (shards, original) = _rank_state(optimizer, tensors), shards_of(model)
    if accelerator.is_main_process:
        check_disk(target.parent, _bytes(weights) + _bytes(kept) * shards)
    if not original:
        kept = {name: tensor for name, tensor in kept.items() if name.startswith(_OF_ONE_RANK)}
    opened: AbstractContextManager[Path] = (
        folder_in_one_step(target, lambda written: digest_marker(written, counters["step"]))
        if accelerator.is_main_process
        else nullcontext(partial_path(target))
    )
    with disk_errors(target), opened as folder:
        accelerator.wait_for_everyone()
        state = folder / STATE
        state.mkdir(exist_ok=True)
        _save_tensors(state / rank_file(accelerator.process_index), kept)
        if accelerator.is_main_process:
            _save_model(folder, model, tokenizer, weights)
            write_json(folder / TRAINER_STATE, {"global_step": counters["step"], "score": score})
            write_json(state / "state.json", dict(counters))
            if metrics is not None and metrics.exists():
                shutil.copyfile(metrics, state / METRICS)
        accelerator.wait_for_everyone()
    accelerator.wait_for_everyone()


def load_state(folder: Path, *, accelerator: Accelerator, optimizer: Optimizer) -> tuple[dict[str, Any], SavedState]:
    """Fill optimizer and random state from a checkpoint; return its counters and its other tensors.

    The student's weights are the checkpoint's own model file: open the model from `folder` before.

    Raises:
        CurioError: the checkpoint kept no state, or one that cannot be read.
    """
    import torch

    file = folder / STATE / "state.json"
    if not file.exists():
        raise CurioError(f"{folder} keeps no state to continue from", "Use --fresh to start this stage over.")
    counters = read_json(file)
    if "step" not in counters:
        raise CurioError(f"{file} is of another version of curiosft", OTHER_VERSION)
    try:
        saved = SavedState(folder / STATE)
        _load_optimizer(optimizer, saved)
        torch.set_rng_state(saved.tensor("rng.cpu", accelerator.process_index))
        if saved.names("rng.cuda"):
            torch.cuda.set_rng_state(saved.tensor("rng.cuda", accelerator.process_index))
    except Exception as error:  # the file of an older version has no digest, and safetensors and torch raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CurioError(f"{folder / STATE} cannot be continued from: {reason}", OTHER_VERSION) from error
    return counters, saved


def _save_model(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, weights: dict[str, Tensor]
) -> None:
    """Write what transformers and vLLM open, with the base's generation settings and model card.

    Every end token that the training taught is among the stops.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    # Sampling settings of a base model may contradict each other, which `save_pretrained` refuses.
    model.generation_config = GenerationConfig()
    try:
        model.save_pretrained(folder, state_dict=weights)
    finally:
        model.generation_config = own
    kept = own.to_diff_dict() if own is not None else {}
    stops = list(with_known_stops(tokenizer, kept.get("eos_token_id")))
    write_json(folder / "generation_config.json", {**kept, "eos_token_id": stops})
    tokenizer.save_pretrained(folder)
    if card := _model_card(str(model.name_or_path)):
        shutil.copyfile(card, folder / MODEL_CARD)


def _model_card(source: str) -> Path | None:
    """The README.md of the folder that a model was opened from, or of the hub's copy on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(source).is_dir():
        file = Path(source) / MODEL_CARD
        return file if file.is_file() else None
    try:
        found = try_to_load_from_cache(source, MODEL_CARD)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _rank_state(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import torch

    state = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["rng.cuda"] = torch.cuda.get_rng_state()
    for index, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            state[f"optimizer.{index}.{key}"] = local_shard(torch.as_tensor(value))
    return state | dict(tensors)


def _load_optimizer(optimizer: Optimizer, saved: SavedState) -> None:
    """Rebuild the moments parameter by parameter; the groups' settings are the configuration's, not the file's."""
    import torch

    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name in saved.names("optimizer."):
        _, index, key = name.split(".")
        parameter = parameters[int(index)]
        moments = optimizer.state.setdefault(parameter, {})
        if key == "step":
            moments[key] = saved.tensor(name).to(parameter.device)
        else:
            moments[key] = torch.zeros_like(parameter)
            local_shard(moments[key]).copy_(saved.shard(name, parameter))


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)


def _bytes(weights: Mapping[str, Tensor]) -> int:
    once = {id(tensor): tensor for tensor in weights.values()}  # tied weights share one
    return sum(tensor.numel() * tensor.element_size() for tensor in once.values())


def check_room(folder: Path, model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Refuse to start a training whose first checkpoint does not fit on the disk.

    Raises:
        CurioError: exit code 4.
    """
    parameters = dict(model.named_parameters())
    moments = {name: local_shard(weight) for name, weight in trained(model).items()}
    each = 2 * _bytes(moments) + _bytes(tensors)
    check_disk(folder, _bytes(parameters) + each * shards_of(model)[0])


def check_disk(folder: Path, needed: int) -> None:
    """Refuse to write `needed` bytes on a disk without so much space.

    Raises:
        CurioError: exit code 4.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CurioError(
            f"a checkpoint needs {needed / GIB:.1f} GiB, {folder} has {free / GIB:.1f} GiB free",
            "Free some space, then run the same command again: it continues from the last checkpoint.",
            GUARD,
        )
