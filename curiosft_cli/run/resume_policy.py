"""Which settings may change when a stage continues: each key says it with its `Policy`, where it is declared."""

from __future__ import annotations

from pydantic import BaseModel

from curiosft_cli.run.config import differing
from curiosft_cli.run.sections import Config
from curiosft_cli.run.sections.base import DECIDES_CURVE, REOPENS_EVALUATION, RESUME_FREE, Policy

# What each stage reads: a change anywhere else does not concern its results.
STAGE_KEYS = {
    "rephrase": ("data", "rephrase"),
    "sft": ("run.seed", "model", "data", "sft"),
    "rl": ("run.seed", "model", "data", "rl"),
    "eval": ("run.seed", "model", "eval"),
}


def keys_with(policy: Policy, section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Dotted keys below `section` that carry this policy. A key that is a section stands for all keys below it."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        if policy in field.metadata:
            keys.append(prefix + name)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += keys_with(policy, field.annotation, f"{prefix}{name}.")
    return keys


def refused_changes(stage: str, old: Config, new: Config, *, complete: bool) -> list[str]:
    """What differs, as `key: old -> new`, in settings that the results of this stage depend on.

    Args:
        complete: the stage is complete, so a training has no evaluation between its steps any more.
    """
    read, free = [*STAGE_KEYS[stage]], keys_with(RESUME_FREE)
    if stage == "eval":
        free += keys_with(REOPENS_EVALUATION)
    elif stage in ("sft", "rl") and getattr(new, stage).eval_benchmarks and not complete:
        read += keys_with(DECIDES_CURVE)
    if stage in ("sft", "rl", "eval"):
        evaluated = old.eval.benchmarks if stage == "eval" else getattr(old, stage).eval_benchmarks
        others = ({*new.eval.data, *new.eval.bench, *old.eval.data, *old.eval.bench}).difference(evaluated)
        free += [f"eval.{section}.{name}" for name in others for section in ("data", "bench")]
    return differing(old, new, read, free)


def reopens(stage: str, old: Config, new: Config) -> bool:
    """Whether a complete stage has new work: an evaluation has, if it gets more to sample, measure or grade."""
    return stage == "eval" and bool(differing(old, new, keys_with(REOPENS_EVALUATION)))
