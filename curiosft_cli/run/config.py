"""Read a TOML file or a recipe, apply dotted overrides, and give one frozen configuration with each value's origin."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from curiosft_cli.run.address import UNSHOWN
from curiosft_cli.run.differences import FIDELITY
from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.run.files import check_regular
from curiosft_cli.run.sections import Config
from curiosft_cli.run.text import shortened
from curiosft_cli.run.values import DEEPEST, check_secrets, check_values, flatten, toml_tree, toml_value

Tree = dict[str, Any]

CONTEXT = ("revision", "max_position_embeddings", "rope_theta")
"""Keys of `[model]` that describe the model that `path` names."""


@dataclass(frozen=True)
class Resolved:
    """A validated configuration.

    Attributes:
        config: the frozen values.
        origins: dotted key -> "default", "fidelity", the file's or recipe's name, or "command line".
        source: the text of the file or recipe, verbatim.
    """

    config: Config
    origins: Mapping[str, str]
    source: str


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    folder = resources.files("curiosft_cli") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(reference: str, overrides: Iterable[str] = ()) -> Resolved:
    """Read a TOML file or a recipe, apply `section.key=value` overrides, and validate the result.

    Raises:
        CurioError: the file does not exist or is not TOML; a key or value is not legal.
    """
    text, origin = _read(reference)
    return resolve(toml_tree(text, origin), parse_overrides(overrides), origin=origin, source=text)


def resolve(given: Tree, overrides: Tree, *, origin: str, source: str = "") -> Resolved:
    """Merge defaults, the chosen fidelity, the file and the overrides; later ones win."""
    given = _without_other_models_context(given, overrides)
    user = _merge(given, overrides)
    run = user.get("run", {})
    chosen = run.get("fidelity") if isinstance(run, dict) else None
    fidelity = FIDELITY.get(chosen, {}) if isinstance(chosen, str) else {}
    merged = _merge(_merge({}, fidelity), user)
    config = _validate(merged)
    check_values(config.model_dump())
    check_secrets(config.model_dump(), {config.rephrase.api_key_env, config.eval.api_key_env})
    _check_objectives(config)
    _check_relations(config)
    _check_read(config, overrides)
    filled = _fill_params(config)
    origins = {
        key: _origin(key, overrides, given, fidelity, origin) for key, _ in flatten(filled.model_dump(mode="json"))
    }
    return Resolved(filled, origins, source)


def _without_other_models_context(given: Tree, overrides: Tree) -> Tree:
    """Drop a file's context settings when the command line names another model than the file."""
    model, other = given.get("model"), overrides.get("model")
    if not isinstance(model, dict) or not isinstance(other, dict) or other.get("path") in (None, model.get("path")):
        return given
    return {**given, "model": {key: value for key, value in model.items() if "path" not in model or key not in CONTEXT}}


def parse_overrides(overrides: Iterable[str]) -> Tree:
    """Turn `sft.learning_rate=2e-6` items into a tree. A value is TOML; a value that is not TOML is a string.

    Raises:
        CurioError: an item is not `section.key=value`, or a key is given twice.
    """
    tree: Tree = {}
    for item in overrides:
        key, equals, raw = item.partition("=")
        parts = key.strip().split(".")
        if not equals or not 1 < len(parts) < DEEPEST or not all(parts):
            raise CurioError(
                f"{shortened(key)} is not an override", "Write section.key=value, e.g. sft.learning_rate=2e-6."
            )
        node: Any = tree
        for part in parts[:-1]:
            node = node.setdefault(part, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict) or parts[-1] in node:
            raise CurioError(f"{shortened(key)} is given twice", "Give each key once.")
        node[parts[-1]] = toml_value(raw, key)
    return tree


def from_json(path: Path) -> Config:
    """Read the complete config.json of a stage."""
    return Config.model_validate(json.loads(path.read_text(encoding="utf-8")))


def differing(old: Config, new: Config, keys: Iterable[str], ignored: Iterable[str] = ()) -> list[str]:
    """Dotted keys at or below `keys`, without `ignored` ones, whose values differ, as `key: old -> new`."""
    below, apart = tuple(keys), tuple(ignored)
    before, after = (dict(flatten(config.model_dump(mode="json"))) for config in (old, new))
    concerned = [key for key in before | after if _within(key, below) and not _within(key, apart)]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in concerned if before.get(key) != after.get(key)]


def _within(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _read(reference: str) -> tuple[str, str]:
    path = Path(reference)
    names = recipe_names()
    if path.suffix != ".toml" and not path.exists():
        if reference not in names:
            raise CurioError(
                f"{shortened(reference)} is neither a TOML file nor a recipe ({nearest(reference, names)})",
                "Give the path of a file that ends in .toml, or a recipe's name.",
            )
        return (resources.files("curiosft_cli") / "recipes" / f"{reference}.toml").read_text("utf-8"), reference
    check_regular(path)
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise CurioError(f"cannot read the configuration {path}: {error}", "Give a UTF-8 TOML file.") from None


def _merge(base: Tree, over: Mapping[str, Any]) -> Tree:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old if isinstance(old, dict) else {}, value) if isinstance(value, dict) else value
    return merged


def _validate(tree: Tree) -> Config:
    try:
        return Config.model_validate(_nulls(tree))
    except ValidationError as error:
        raise CurioError(*_explain(error)) from None


def _nulls(tree: Any) -> Any:
    """Replace the string "none" by None: TOML has no null."""
    if isinstance(tree, dict):
        return {key: _nulls(value) for key, value in tree.items()}
    return None if tree == "none" else tree


def _explain(error: ValidationError) -> tuple[str, str]:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        section: Any = Config
        for part in path[:-1]:
            section = section.model_fields[part].annotation
        legal = section.model_fields if inspect.isclass(section) and issubclass(section, BaseModel) else {}
        return f"unknown configuration key {shortened(key)}", nearest(path[-1], legal)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == UNSHOWN:
        return f"{key} {first['msg']}{more}", "Keys of endpoints belong into an environment variable."
    return f"{key} = {shortened(first['input'])} is not legal: {first['msg'][0].lower()}{first['msg'][1:]}{more}", ""


def _check_objectives(config: Config) -> None:
    """Check the objectives' names and keyword parameters; only here does the configuration read the objectives."""
    from curiosft_cli.objectives import RL_OBJECTIVES, SFT_OBJECTIVES, objective_parameters

    for section, table in (("sft", SFT_OBJECTIVES), ("rl", RL_OBJECTIVES)):
        chosen = getattr(config, section)
        if chosen.objective not in table:
            raise CurioError(
                f"{section}.objective = {shortened(chosen.objective)} does not exist",
                nearest(chosen.objective, table),
            )
        legal = objective_parameters(table[chosen.objective])
        for name, value in chosen.params.items():
            if name not in legal:
                raise CurioError(
                    f"{section}.params.{name} is not a parameter of '{chosen.objective}'",
                    nearest(name, legal) if legal else "This objective has no parameters.",
                )
            _check_type(f"{section}.params.{name}", value, legal[name])


def _check_type(key: str, value: Any, parameter: inspect.Parameter) -> None:
    try:
        TypeAdapter(parameter.annotation, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise CurioError(f"{key} = {shortened(value)} is not legal: {message[0].lower()}{message[1:]}") from None


def _fill_params(config: Config) -> Config:
    """Write the defaults of the chosen objectives into `params`, so that the saved configuration is complete."""
    from curiosft_cli.objectives import RL_OBJECTIVES, SFT_OBJECTIVES, objective_parameters

    def filled(section: Any, table: Mapping[str, Any]) -> Any:
        defaults = {name: p.default for name, p in objective_parameters(table[section.objective]).items()}
        return section.model_copy(update={"params": {**defaults, **section.params}})

    return config.model_copy(update={"sft": filled(config.sft, SFT_OBJECTIVES), "rl": filled(config.rl, RL_OBJECTIVES)})


def _check_relations(config: Config) -> None:
    teacher, rl = config.sft.teacher, config.rl
    if teacher.tau_min > teacher.tau_max:
        raise CurioError(f"sft.teacher.tau_min = {teacher.tau_min} is above tau_max = {teacher.tau_max}", "Swap them.")
    if teacher.search_dtype == "logits" and teacher.search != "bisect":
        raise CurioError(
            f"sft.teacher.search = '{teacher.search}' always searches in float32, and search_dtype is 'logits'",
            "Set sft.teacher.search=bisect, or sft.teacher.search_dtype=float32.",
        )
    if rl.prompts_per_step % rl.mini_batch_prompts:
        raise CurioError(
            f"rl.prompts_per_step = {rl.prompts_per_step} is not a multiple of "
            f"rl.mini_batch_prompts = {rl.mini_batch_prompts}",
            "Choose a divisor, so that every update has the same number of prompts.",
        )
    if rl.server_sync == "nccl" and not rl.servers:
        raise CurioError("rl.server_sync = nccl, and rl.servers is empty", "Name the servers, or leave it at folder.")

    for name, steps, evaluated in (
        ("sft", config.sft.eval_steps, (*config.data.validation, *config.sft.eval_benchmarks)),
        ("rl", rl.eval_steps, rl.eval_benchmarks),
    ):
        if steps is not None and not evaluated:
            also = "data.validation or " if name == "sft" else ""
            raise CurioError(
                f"{name}.eval_steps = {steps} has nothing to evaluate", f"Set {also}{name}.eval_benchmarks too."
            )


def _check_read(config: Config, overrides: Tree) -> None:
    """Refuse a teacher setting from the command line that has no effect; a recipe may keep one."""
    from curiosft_cli.objectives import SFT_OBJECTIVES

    by_hand = overrides.get("sft", {}).get("teacher", {})
    chosen = SFT_OBJECTIVES[config.sft.objective].bind(**config.sft.params)
    if by_hand and "teacher_logp" not in chosen.needs:
        raise CurioError(
            f"sft.teacher.{next(iter(by_hand))} is not read by sft.objective = '{config.sft.objective}'",
            "Leave it out, or choose sft.objective=curio.",
        )


def _origin(key: str, overrides: Tree, given: Tree, fidelity: Tree, origin: str) -> str:
    for tree, name in ((overrides, "command line"), (given, origin), (fidelity, "fidelity")):
        node: Any = tree
        for part in key.split("."):
            node = node.get(part, ...) if isinstance(node, dict) else ...
        if node is not ...:
            return name
    return "default"
