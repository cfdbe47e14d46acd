"""Where one configuration departs from the paper, and where from the authors' code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from curiosft_cli.run.config import flatten, resolve
from curiosft_cli.run.differences import DIFFERENCES, Deviation, as_table, fidelity_tree, merge
from curiosft_cli.run.sections import Config

TRAINING = ("sft", "rl")
STAGES_OF = {"model": TRAINING, "data": TRAINING}
"""Stages that read a section, where it is not the stage's own."""

Column = Literal["paper", "official"]
TITLES: dict[Column, str] = {"paper": "the paper", "official": "the authors' code"}


def departures(config: Config, column: Column) -> list[Deviation]:
    """The rows of the table in which `config` departs from a column; `keys` then has the values of `config`."""
    ours = dict(flatten(config.model_dump(mode="json")))
    theirs = dict(flatten(_reference(config, column).model_dump(mode="json")))
    rows = (row for row in DIFFERENCES if _concerns(row, config))
    return [replace(row, keys=_values(row, ours)) for row in rows if _departs(row, column, ours, theirs)]


def explained(config: Config) -> str:
    """Both lists as text."""
    parts = []
    for column, title in TITLES.items():
        rows = departures(config, column)
        parts.append(f"Departs from {title}:\n{as_table(rows)}" if rows else f"Does not depart from {title}.")
    return "\n\n".join(parts)


def _reference(config: Config, column: str) -> Config:
    """What the column runs in the place of this configuration's objectives."""
    chosen = {"sft": {"objective": config.sft.objective}, "rl": {"objective": config.rl.objective}}
    read = merge(chosen, fidelity_tree(column, config.sft.objective, config.rl.objective))
    return resolve(read, {}, origin=column).config


def _concerns(row: Deviation, config: Config) -> bool:
    """Whether the configuration runs the row's stage with one of its objectives."""
    section = row.stage or row.keys.partition(".")[0]
    stages = [stage for stage in STAGES_OF.get(section, (section,)) if stage in config.run.stages]
    objectives = {getattr(config, stage).objective for stage in stages if stage in TRAINING}
    return bool(stages) and (not row.objectives or bool(objectives & set(row.objectives)))


def _departs(row: Deviation, column: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """By its keys; where there is nothing to choose, by what the table says."""
    said = getattr(row, column)
    if row.keys == "-" or said == "-":
        return said not in ("-", row.default)
    return any(ours[key] != theirs[key] for key in _keys(row, ours) if key in theirs)


def _keys(row: Deviation, flat: Mapping[str, Any]) -> list[str]:
    named = row.keys.split(", ")
    return [key for key in flat if any(key == name or key.startswith(f"{name}.") for name in named)]


def _values(row: Deviation, ours: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {json.dumps(ours[key])}" for key in _keys(row, ours)) or "-"
