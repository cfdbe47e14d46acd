"""Read a TOML file or a recipe, apply dotted overrides, and give one frozen configuration with each value's origin."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from curiosft_cli.run.address import UNSHOWN
from curiosft_cli.run.differences import Tree, fidelity_tree, merge
from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.run.files import read_json
from curiosft_cli.run.layers import Layer, merged, read_layers, recipe_names, without_other_models_context
from curiosft_cli.run.sections import Config
from curiosft_cli.run.sections.base import OTHER_FOLDERS
from curiosft_cli.run.text import shortened
from curiosft_cli.run.values import DEEPEST, check_secrets, check_values, flatten, toml_value

if TYPE_CHECKING:
    from curiosft_cli.run.objective_file import Named

__all__ = ["Resolved", "differing", "flatten", "from_json", "load", "parse_overrides", "recipe_names", "resolve"]


@dataclass(frozen=True)
class Resolved:
    """A validated configuration.

    Attributes:
        config: the frozen values.
        origins: dotted key -> "default", "fidelity", the file's or recipe's name, or "command line".
        source: the text of the file or recipe, verbatim.
        arguments: the file or recipe and the overrides, as they were given.
    """

    config: Config
    origins: Mapping[str, str]
    source: str
    arguments: tuple[str, ...] = ()


def load(reference: str, overrides: Iterable[str] = ()) -> Resolved:
    """Read a TOML file or a recipe with what it extends, apply `section.key=value` overrides, and validate the result.

    Raises:
        CurioError: a file does not exist or is not TOML; a key or value is not legal.
    """
    *bases, own = read_layers(reference)
    given = tuple(overrides)
    resolved = resolve(own.tree, parse_overrides(given), origin=own.origin, source=own.text, bases=bases)
    return replace(resolved, arguments=(reference, *given))


def resolve(given: Tree, overrides: Tree, *, origin: str, source: str = "", bases: Sequence[Layer] = ()) -> Resolved:
    """Merge defaults, the chosen fidelity, `bases`, the file and the overrides; later ones win."""
    layers = without_other_models_context([*bases, Layer(origin, given), Layer("command line", overrides)])
    user = merged(layers)
    fidelity = fidelity_tree(*(_chosen(user, *key) for key in (("run", "fidelity"), *OBJECTIVES)))
    if isinstance(own := user.get("rl"), dict) and "steps" in own:
        fidelity["rl"].pop("epochs", None)
    config = _validate(merge(fidelity, user))
    check_values(config.model_dump())
    check_secrets(config.model_dump(), {config.rephrase.api_key_env, config.eval.api_key_env})
    objectives = _objectives(config)
    _check_params(config, objectives)
    _check_relations(config)
    _check_read(config, overrides, objectives)
    filled = _fill_params(config, objectives)
    stack = [Layer("fidelity", fidelity), *layers]
    origins = {key: _origin(key, stack) for key, _ in flatten(filled.model_dump(mode="json"))}
    return Resolved(filled, origins, source)


OBJECTIVES = (("sft", "objective"), ("rl", "objective"))


def _chosen(user: Tree, section: str, key: str) -> str:
    """A value of the user, or its default."""
    given = user.get(section)
    chosen = given.get(key) if isinstance(given, dict) else None
    return chosen if isinstance(chosen, str) else getattr(getattr(Config(), section), key)


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
    """Read the complete config.json of a stage.

    Raises:
        CurioError: it is damaged, or another version of curiosft wrote it.
    """
    fix = "Continue with that version of curiosft, or use --fresh to start this stage over."
    tree = read_json(path, "Restore it, or use --fresh to start this stage over.")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise CurioError(f"{path} is of another version: {_explain(error)[0]}", fix) from None


def differing(old: Config, new: Config, keys: Iterable[str], ignored: Iterable[str] = ()) -> list[str]:
    """Dotted keys at or below `keys`, without `ignored` ones, whose values differ, as `key: old -> new`."""
    below, apart = tuple(keys), tuple(ignored)
    before, after = (dict(flatten(config.model_dump(mode="json"))) for config in (old, new))
    concerned = [key for key in before | after if _within(key, below) and not _within(key, apart)]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in concerned if before.get(key) != after.get(key)]


def _within(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


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
    path = [str(part) for part in first["loc"] if part != "[key]"]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        section: Any = Config
        for part in path[:-1]:
            named = inspect.isclass(section) and issubclass(section, BaseModel)
            section = section.model_fields[part].annotation if named else get_args(section)[-1]  # of dict[str, ...]
        legal = section.model_fields if inspect.isclass(section) and issubclass(section, BaseModel) else {}
        return f"unknown configuration key {shortened(key)}", nearest(path[-1], legal)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == UNSHOWN:
        return f"{key} {first['msg']}{more}", "Keys of endpoints belong into an environment variable."
    return (
        f"{key[:100]} = {shortened(first['input'])} is not legal: {first['msg'][0].lower()}{first['msg'][1:]}{more}",
        "",
    )


def _objectives(config: Config) -> dict[str, Named]:
    """The objective of each training section; only here does the configuration read the objectives.

    Raises:
        CurioError: a name does not exist, or see `sft_objective`.
    """
    from curiosft_cli.objectives import RL_OBJECTIVES
    from curiosft_cli.run.objective_file import Named, sft_objective

    if config.rl.objective not in RL_OBJECTIVES:
        raise CurioError(
            f"rl.objective = {shortened(config.rl.objective)} does not exist",
            nearest(config.rl.objective, RL_OBJECTIVES),
        )
    own = sft_objective(config.sft.objective, config.sft.objective_sha256)
    return {"sft": own, "rl": Named(RL_OBJECTIVES[config.rl.objective], None)}


def _check_params(config: Config, objectives: Mapping[str, Named]) -> None:
    """Check the keyword parameters of the objectives, and the defaults of a user's own."""
    from curiosft_cli.objectives import objective_parameters

    for section, named in objectives.items():
        chosen, legal = getattr(config, section), objective_parameters(named.objective)
        own = {name: parameter.default for name, parameter in legal.items() if named.digest}
        for name, value in {**own, **chosen.params}.items():
            if name not in legal:
                raise CurioError(
                    f"{section}.params.{name} is not a parameter of '{chosen.objective}'",
                    nearest(name, legal) if legal else "This objective has no parameters.",
                )
            _check_type(f"{section}.params.{name}", value, legal[name])


def _check_type(key: str, value: Any, parameter: inspect.Parameter) -> None:
    try:
        TypeAdapter(parameter.annotation, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except PydanticUserError:
        kind = shortened(parameter.annotation)
        raise CurioError(f"{key} has the type {kind}", "Use float, int, bool or str for it.") from None
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise CurioError(f"{key} = {shortened(value)} is not legal: {message[0].lower()}{message[1:]}") from None


def _fill_params(config: Config, objectives: Mapping[str, Named]) -> Config:
    """Write the defaults of the chosen objectives into `params`, and the digest of a file, so that the saved
    configuration is complete.
    """
    from curiosft_cli.objectives import objective_parameters

    def filled(section: Any, named: Named) -> dict[str, Any]:
        defaults = {name: p.default for name, p in objective_parameters(named.objective).items()}
        return {"params": {**defaults, **section.params}}

    sft = filled(config.sft, objectives["sft"]) | {"objective_sha256": objectives["sft"].digest}
    rl = filled(config.rl, objectives["rl"])
    return config.model_copy(update={"sft": config.sft.model_copy(update=sft), "rl": config.rl.model_copy(update=rl)})


def _check_relations(config: Config) -> None:
    teacher, rl = config.sft.teacher, config.rl
    if config.eval.name.lower() in OTHER_FOLDERS:
        raise CurioError(
            f"eval.name = '{config.eval.name}' is the folder of another stage", "Choose another name, e.g. eval-16."
        )
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
        _check_best_by(config, name)


def _check_best_by(config: Config, name: str) -> None:
    """Refuse a choice of the best checkpoint by something that the stage does not evaluate."""
    settings, held_out = getattr(config, name), name == "sft" and bool(config.data.validation)
    if settings.best_by == "heldout_loss" and not held_out:
        fix = "Set data.validation too." if name == "sft" else "rl evaluates no held-out rows; use avg or pass@k."
        raise CurioError(f"{name}.best_by = heldout_loss has no held-out rows", fix)
    if settings.best_by == "pass@k" and not settings.eval_benchmarks:
        raise CurioError(f"{name}.best_by = pass@k has no benchmark", f"Set {name}.eval_benchmarks too.")


def _check_read(config: Config, overrides: Tree, objectives: Mapping[str, Named]) -> None:
    """Refuse teacher settings that the objective cannot use; and, from the command line, a setting that it does not
    read. A recipe may keep one.
    """
    by_hand = overrides.get("sft", {}).get("teacher", {})
    chosen = objectives["sft"].objective.bind(**config.sft.params)
    if config.sft.teacher.kind == "self" and "teacher_tau" in chosen.needs:
        raise CurioError(
            f"sft.teacher.kind = 'self' has no temperatures to give to sft.objective = '{config.sft.objective}'",
            "Set sft.teacher.kind=ema.",
        )
    if by_hand and not chosen.needs & {"teacher_logp", "teacher_tau"}:
        raise CurioError(
            f"sft.teacher.{next(iter(by_hand))} is not read by sft.objective = '{config.sft.objective}'",
            "Leave it out, or choose sft.objective=curio.",
        )
    terms = objectives["rl"].objective.bind(**config.rl.params).terms
    if "reduction" in overrides.get("rl", {}) and "reduction" not in terms:
        raise CurioError(
            f"rl.reduction is not read by rl.objective = '{config.rl.objective}', which weighs as its published script",
            "Leave it out, or set rl.params.script_gpus=none.",
        )


def _origin(key: str, stack: Sequence[Layer]) -> str:
    """Where the value of a dotted key comes from: the last layer that has it."""
    for layer in reversed(stack):
        node: Any = layer.tree
        for part in key.split("."):
            node = node.get(part, ...) if isinstance(node, dict) else ...
        if node is not ...:
            return layer.origin
    return "default"
