"""`curiosft model check`: find what would go wrong with a model in sft, rl and eval, without opening it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curiosft_cli.data.prompts import SYSTEM_PROMPT
from curiosft_cli.run.digests import check_digests
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import StageDir, resolve_checkpoint
from curiosft_cli.run.text import one_line
from curiosft_cli.tools.model.prepare import THINK_TAGS, needed_context
from curiosft_cli.tools.model.source import (
    ModelSource,
    configured_stops,
    open_source,
    plain_config,
    read_config,
    read_tokenizer,
)
from curiosft_cli.tools.model.weights import StoredTensor, check_finite, read_tensors
from curiosft_cli.tools.quickstart_model import require_quickstart_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.run.sections import Config

Level = Literal["problem", "note", "ok"]
PREPARE = "Run `curiosft model prepare MODEL --out DIR`."


@dataclass(frozen=True)
class Remark:
    """The result of one check.

    Attributes:
        about: the part of the model.
        level: "problem" sets the exit code to 2.
        says: what was found, and its effect on sft, rl or eval.
        fix: the next step.
    """

    about: str
    level: Level
    says: str
    fix: str = ""


def check_model(name: str, config: Config) -> list[Remark]:
    """Check every part. A part that cannot be read is a problem, and the other parts are still checked.

    Raises:
        CurioError: the model does not exist.
    """
    source = open_source(name, config.model, weights=False)
    remarks: list[Remark] = []
    try:
        model = read_config(source, config.model)
    except CurioError as error:
        return [Remark("code" if "auto_map" in error.what else "configuration", "problem", error.what, error.fix)]
    remarks += [*_code(source), *_context(model, config), *_weights(source, model)]
    try:
        tokenizer = read_tokenizer(source, config.model)
    except CurioError as error:
        return [*remarks, Remark("tokenizer", "problem", error.what, error.fix)]
    remarks += [*_template(tokenizer, config), *_ends(tokenizer, source), *_padding(tokenizer)]
    return [*remarks, *_think_tags(tokenizer), *_vocabulary(tokenizer, model)]


def as_text(remarks: Sequence[Remark]) -> str:
    """A line for each remark, and one for its fix."""
    lines: list[str] = []
    for remark in remarks:
        level = "PROBLEM" if remark.level == "problem" else remark.level
        lines.append(one_line(f"{level:8} {remark.about}: {remark.says}"))
        lines += [one_line(f"         -> {remark.fix}")] if remark.fix else []
    return "\n".join(lines)


def require_sound_models(
    stage: str, directory: StageDir, config: Config, console: Console, say_above_bytes: int = 8 * 2**30
) -> None:
    """Check the files of every model folder that a stage opens, before its processes start; fetch the quickstart's.

    What needs the opened tokenizer, the stage checks when it opens it. A reference without a folder is the stage's to
    refuse.

    Args:
        console: gets a line for models above `say_above_bytes`.

    Raises:
        CurioError: a file is damaged, was changed after it was written, or holds weights that are not finite; (exit
            code 3) the quickstart's model cannot be downloaded.
    """
    for reference in _opened(stage, directory, config):
        try:
            path = resolve_checkpoint(reference, config)
        except CurioError:
            continue
        require_quickstart_model(path, console, directory.log_file)
        if Path(path).is_dir():
            source = open_source(path, config.model, weights=False)
            size = sum(file.stat().st_size for file in source.folder.rglob("*.safetensors"))
            if size > say_above_bytes:  # it takes a while
                console.say(f"{stage}: checking {size / 2**30:.0f} GiB in {source.folder}")
            configured_stops(source)
            for remark in _weights(source, plain_config(source, config.model)):
                if remark.level == "problem":
                    raise CurioError(remark.says, remark.fix)


def _opened(stage: str, directory: StageDir, config: Config) -> list[str]:
    """References of the models that a stage opens on this machine."""
    if stage == "eval":
        return [] if config.eval.engine == "openai" else list(config.eval.checkpoints)
    if stage == "rephrase":
        return [config.model.path] if config.rephrase.base_url == "local" else []
    own = [str(directory.checkpoint(step)) for step in directory.checkpoints()[-1:]]
    settings = config.rl if stage == "rl" else config.sft
    return own if own and settings.lora.rank is None else [*own, settings.init]


def _code(source: ModelSource) -> Iterator[Remark]:
    files = sorted(path.name for path in source.folder.glob("*.py"))
    if files:
        yield Remark("code", "note", f"the folder has Python files ({', '.join(files)}), which are not run")
    else:
        yield Remark("code", "ok", "the model has no Python code")


def _context(model: dict[str, Any], config: Config) -> Iterator[Remark]:
    own = model.get("max_position_embeddings")
    limit = config.model.max_position_embeddings or own
    prompt = config.data.max_prompt_length
    needs = {
        "sft": prompt + config.sft.max_response_length,
        "rl": prompt + config.rl.max_completion_length,
        "eval": prompt + config.eval.max_completion_length,
    }
    short = {stage: need for stage, need in needs.items() if limit and need > limit}
    if short:
        needed = ", ".join(f"{stage} {need}" for stage, need in short.items())
        yield Remark(
            "context",
            "problem",
            f"holds {limit} tokens, needed are {needed}: these stages refuse to start",
            f"{PREPARE} Or set model.max_position_embeddings and model.rope_theta, or lower the lengths.",
        )
    else:
        yield Remark("context", "ok", f"holds {limit or 'any number of'} tokens, needed are {needed_context(config)}")
    if model.get("use_sliding_window") and (window := model.get("sliding_window") or 0) < needed_context(config):
        yield Remark(
            "context",
            "problem",
            f"attends to the last {window} tokens only (use_sliding_window): a long thought loses its question",
            'Set "use_sliding_window": false in config.json if the model was trained without it.',
        )


def _weights(source: ModelSource, model: dict[str, Any]) -> Iterator[Remark]:
    if not Path(source.name).expanduser().is_dir():
        yield Remark("weights", "note", "not checked: they are on the hub")
        return
    try:
        tensors = read_tensors(source.folder)
        if not (files := check_digests(source.folder)):
            check_finite(source.folder)
    except CurioError as error:
        yield Remark("weights", "problem", error.what, error.fix)
        return
    whole = [name for name, tensor in tensors.items() if name.endswith(".weight") and tensor.dtype[0] in "IU"]
    if whole:
        yield Remark(
            "weights",
            "problem",
            f"{source.folder}: {whole[0]} holds whole numbers ({tensors[whole[0]].dtype}), expected fractions",
            "Take a version of the model that is not quantised.",
        )
        return
    types = ", ".join(sorted({tensor.dtype for tensor in tensors.values()}))
    found = f"{files} files as they were written" if files else "every file whole, every number finite"
    yield Remark("weights", "ok", f"{len(tensors)} tensors, {types}, {found}")
    yield from _head(tensors, model)


def _head(tensors: dict[str, StoredTensor], model: dict[str, Any]) -> Iterator[Remark]:
    stored = any(name.endswith("lm_head.weight") for name in tensors)
    tied = model.get("tie_word_embeddings")
    if tied is False and not stored:
        yield Remark(
            "head",
            "problem",
            "the configuration says that the head is not tied, but no head is stored: it would be random",
            'Download the model again, or set "tie_word_embeddings": true in config.json.',
        )
    elif tied and stored:
        yield Remark("head", "note", "tied, and stored as well: the stored copy is not read")
    else:
        yield Remark("head", "ok", "stored" if stored else "tied to the embedding")


def _template(tokenizer: PreTrainedTokenizerBase, config: Config) -> Iterator[Remark]:
    if not tokenizer.chat_template:
        yield Remark("template", "problem", "there is no chat template: no stage can make a prompt", PREPARE)
        return
    from curiosft_cli.train.encode import render_chat

    system = SYSTEM_PROMPT if config.model.system_prompt is None else config.model.system_prompt
    user = {"role": "user", "content": "QUESTION"}
    chat = [{"role": "system", "content": system}, user] if system else [user]
    try:
        with_turn, without = (render_chat(tokenizer, chat, opened=opened) for opened in (True, False))
        bare = render_chat(tokenizer, [user])
    except CurioError as error:
        yield Remark("template", "problem", error.what, error.fix)
        return
    if with_turn == without:
        yield Remark(
            "template",
            "problem",
            "has no generation prompt: completions would begin inside the user's turn",
            PREPARE,
        )
    else:
        yield Remark("template", "ok", f"opens the answer with {with_turn.removeprefix(without)!r}")
    added = bare.partition("QUESTION")[0]
    if system and system in added:
        yield Remark("default system prompt", "ok", "a bare question gets the training prompt")
    elif sum(len(word) for word in added.split() if word.isalpha()) > 40 or "system" in added:
        yield Remark(
            "default system prompt",
            "note",
            f"a bare question gets another prompt than in training: {added[:100]!r}",
            f"It matters to whoever serves the model, not to the stages. {PREPARE}",
        )
    if system and len(extra := with_turn.partition(system)[0].split()) > 6:
        yield Remark("template", "note", f"writes text of its own before the system prompt: {' '.join(extra)[:100]!r}")


def _ends(tokenizer: PreTrainedTokenizerBase, source: ModelSource) -> Iterator[Remark]:
    from curiosft_cli.train.encode import end_token_id

    try:
        configured = configured_stops(source)
    except CurioError as error:
        yield Remark("stop tokens", "problem", error.what, error.fix)
        return
    stops = {*(configured or ()), tokenizer.eos_token_id}
    if tokenizer.eos_token_id is None:
        yield Remark("stop tokens", "problem", "there is no end token: sft cannot close a response", PREPARE)
        return
    end = end_token_id(tokenizer)
    name = tokenizer.convert_ids_to_tokens(end)
    if configured is not None and end not in configured:
        yield Remark(
            "stop tokens",
            "problem",
            f"sft ends a response with {name}, which generation_config.json does not list: "
            "a server would go on after the answer (rl and eval of curiosft add it)",
            PREPARE,
        )
    elif end not in stops:
        yield Remark("stop tokens", "problem", f"{name} ends a turn and is not among the stop tokens", PREPARE)
    else:
        yield Remark("stop tokens", "ok", ", ".join(str(tokenizer.convert_ids_to_tokens(t)) for t in sorted(stops)))


def _padding(tokenizer: PreTrainedTokenizerBase) -> Iterator[Remark]:
    from curiosft_cli.train.encode import end_token_id

    if tokenizer.pad_token_id is None:
        yield Remark("padding token", "problem", "missing: libraries that pad refuse, or take the end token", PREPARE)
    elif tokenizer.eos_token_id is not None and tokenizer.pad_token_id == end_token_id(tokenizer):
        yield Remark(
            "padding token",
            "problem",
            f"{tokenizer.pad_token} also ends a turn: a library that masks padding trains no end",
            PREPARE,
        )
    else:
        yield Remark("padding token", "ok", str(tokenizer.pad_token))


def _think_tags(tokenizer: PreTrainedTokenizerBase) -> Iterator[Remark]:
    pieces = {tag: tokenizer.encode(tag, add_special_tokens=False) for tag in THINK_TAGS}
    counts = ", ".join(f"{tag} {len(ids)}" for tag, ids in pieces.items())
    if any(len(ids) == 1 and ids[0] in tokenizer.all_special_ids for ids in pieces.values()):
        yield Remark(
            "think tags",
            "note",
            "special tokens: a server that skips special tokens hides where the thought ends",
            "Ask it for skip_special_tokens=false; curiosft does.",
        )
    else:
        yield Remark("think tags", "ok", f"tokens of each: {counts}")


def _vocabulary(tokenizer: PreTrainedTokenizerBase, model: dict[str, Any]) -> Iterator[Remark]:
    rows, highest = model.get("vocab_size"), max(tokenizer.get_vocab().values(), default=-1)
    if rows is not None and highest >= rows:
        yield Remark(
            "vocabulary",
            "problem",
            f"the tokenizer has ids up to {highest}, the embedding {rows} rows: training would crash on them",
            "Take the tokenizer that belongs to the model.",
        )
    else:
        yield Remark("vocabulary", "ok", f"{highest + 1} tokens, {rows} rows")
