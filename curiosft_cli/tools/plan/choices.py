"""`--write`: settings that make a configuration fit, each with its reason, as a configuration of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.config import load
from curiosft_cli.run.device import GIB
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.files import write_text
from curiosft_cli.run.values import toml_value
from curiosft_cli.tools.plan.estimate import plan_stages
from curiosft_cli.tools.plan.machines import CPU, Setting
from curiosft_cli.tools.plan.memory import SHARDED
from curiosft_cli.train.shards import shard_kind

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Config
    from curiosft_cli.tools.plan.estimate import StagePlan

Choices = dict[str, str]
"""A setting, `section.key=value`, and its reason."""


def fitting(reference: str, overrides: list[str], shape: Any, setting: Setting) -> tuple[Choices, list[StagePlan]]:
    """The fewest changes, in the order in which they cost least time, after which every stage fits; and the plan then.

    Raises:
        CurioError: exit code 4 when no change is left and a stage still does not fit.
    """
    choices: Choices = {}
    while True:
        config = load(reference, with_choices(overrides, choices)).config
        plans = plan_stages(config, shape, setting)
        short = next((plan for plan in plans if not plan.fits), None)
        if short is None:
            return choices, plans
        setting_of, reason = next(_ways(short, config, setting), (None, ""))
        if setting_of is None:
            raise CurioError(
                f"{short.stage} needs {sum(short.terms.values()) / GIB:.1f} GiB of each device, and there are "
                f"{short.memory / GIB:.1f}, whatever is set",
                "Take more or larger GPUs (--gpus, --gpu, --nodes), a smaller model, or sft.lora.rank=16.",
                GUARD,
            )
        key = setting_of.partition("=")[0]
        choices = {name: why for name, why in choices.items() if not name.startswith(f"{key}=")}
        choices[setting_of] = reason


def with_choices(overrides: list[str], choices: Iterable[str]) -> list[str]:
    """The settings of the command line, with the choices in place of those of the same key."""
    return list({setting.partition("=")[0]: setting for setting in [*overrides, *choices]}.values())


def _ways(
    plan: StagePlan, config: Config, setting: Setting, *, engine_room: float = 0.02, least_chunk: int = 128
) -> Iterator[tuple[str, str]]:
    """Changes that are still open, the cheapest first.

    Args:
        plan: of the stage that does not fit.
        config: what was planned.
        setting: the devices.
        engine_room: share of a device that an engine needs beside its weights.
        least_chunk: positions of the smallest chunk of the head.
    """
    if plan.stage not in ("sft", "rl"):
        return
    over = f"{plan.stage} needs {sum(plan.terms.values()) / GIB:.0f} of {plan.memory / GIB:.0f} GiB"
    held = {name: plan.terms[name] for name in SHARDED if name in plan.terms}
    kind = shard_kind(config.launch, setting.ranks)
    if kind is None and setting.ranks > 1:
        yield "launch.shard=full", f"{over}, {sum(held.values()) / GIB:.0f} of them a whole copy of the model's state"
    if plan.phase == "sampling":
        yield from _smaller_engine(plan, config, setting, engine_room)
    else:
        yield from _smaller_batches(plan, config, setting, over, least_chunk)
    if kind == "hybrid" and setting.nodes > 1:
        yield "launch.shard=full", f"{over}: parts over all nodes are smaller than over one"
    if held and not config.launch.offload and config.launch.shard is not None and setting.name != CPU:
        parts = f"{', '.join(held)}, {sum(held.values()) / GIB:.0f} GiB of each device"
        yield "launch.offload=true", f"{over}: {parts}, wait in main memory; steps take longer"


def _smaller_engine(plan: StagePlan, config: Config, setting: Setting, engine_room: float) -> Iterator[tuple[str, str]]:
    trainer = sum(plan.terms.get(name, 0.0) for name in ("weights", "optimizer"))
    share = int(100 * (plan.memory - trainer) / setting.machine.memory) / 100
    least = plan.terms["engine weights"] / setting.machine.memory + engine_room
    if least < share < config.rl.gpu_memory_utilization:
        yield f"rl.gpu_memory_utilization={share}", f"the trainer's state takes {trainer / GIB:.0f} GiB"


def _smaller_batches(
    plan: StagePlan, config: Config, setting: Setting, over: str, least_chunk: int
) -> Iterator[tuple[str, str]]:
    settings = config.sft if plan.stage == "sft" else config.rl
    if not settings.gradient_checkpointing:
        yield f"{plan.stage}.gradient_checkpointing=true", f"{over}: activations are computed again"
    row = setting.prompt_tokens + setting.response_tokens
    if (smaller := settings.max_tokens_per_batch // 2) >= row:
        yield f"{plan.stage}.max_tokens_per_batch={smaller}", f"{over}: smaller packs, more of them"
    if settings.head_chunk > least_chunk:
        yield f"{plan.stage}.head_chunk={settings.head_chunk // 2}", f"{over}: fewer logits at a time"
    if plan.stage == "sft" and "teacher" in plan.terms and not config.sft.teacher.offload:
        yield "sft.teacher.offload=true", f"{over}: the teacher waits in main memory"


def target_of(reference: str) -> Path:
    """The file to write: beside the given one, or here where it is a recipe.

    Raises:
        CurioError: it exists.
    """
    given = Path(reference)
    target = (
        given.with_name(f"{given.stem}-planned.toml") if given.suffix == ".toml" else Path(f"{reference}-planned.toml")
    )
    if target.exists():
        raise CurioError(f"{target} exists", "Rename it, or delete it.")
    return target


def write_choices(target: Path, reference: str, overrides: list[str], choices: Mapping[str, str]) -> None:
    """Write a configuration that extends `reference` by the settings of the command line and the choices."""
    extended = Path(reference).name if reference.endswith(".toml") else reference
    lines = [f"extends = {json.dumps(extended)}"]
    for setting in with_choices(overrides, choices):
        key, _, raw = setting.partition("=")
        value = json.dumps(raw, ensure_ascii=False) if toml_value(raw, key) in (raw, None) else raw
        lines.append(f"{key} = {value}  # {choices.get(setting, 'given')}")
    write_text(target, "\n".join([*lines, *([] if choices else ["# It fits as it is."])]) + "\n")
