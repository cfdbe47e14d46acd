"""How the runs were made: what differs in their settings, versions, hardware, seeds, states."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from curiosft_cli.run.text import shortened
from curiosft_cli.run.values import flatten
from curiosft_cli.tools.report.headline import NONE
from curiosft_cli.tools.report.markup import Row, notes, table
from curiosft_cli.tools.report.read import RunRecord

ENVIRONMENT = ("python", "platform", "cpu", "cpu_count", "cores", "accelerators")


def how_made(runs: Sequence[RunRecord]) -> str:
    """Three tables: stages, versions and hardware, and the settings that differ between the runs."""
    header = ["", *(run.label for run in runs)]
    made = [
        ["seed", *(_shown(run.config.get("run", {}).get("seed")) for run in runs)],
        ["model", *(_shown(run.config.get("model", {}).get("path")) for run in runs)],
        *_stage_rows(runs),
    ]
    environments = [_environment(run) for run in runs]
    keys = list(dict.fromkeys(key for environment in environments for key in environment))
    versions = [[key, *(_shown(environment.get(key)) for environment in environments)] for key in keys]
    parts = [table(header, made)]
    if versions:
        parts += ["<h3>Versions and hardware</h3>", table(header, versions)]
    if len(runs) > 1:
        differing = differences([run.config for run in runs])
        parts += ["<h3>Settings that differ</h3>", table(header, differing) if differing else notes(["None."])]
    return "".join(parts)


def differences(configs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The keys whose values are not the same everywhere, with the value of each run. The run's name is no setting."""
    flat = [dict(flatten(dict(config))) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config)
    found = [(key, [config.get(key) for config in flat]) for key in keys if key != "run.name"]
    return [[key, *map(_shown, values)] for key, values in found if any(value != values[0] for value in values)]


def _stage_rows(runs: Sequence[RunRecord]) -> list[Row]:
    names = list(dict.fromkeys(name for run in runs for name in run.stages))
    return [[name, *(run.stages[name].state if name in run.stages else NONE for run in runs)] for name in names]


def _environment(run: RunRecord) -> dict[str, Any]:
    """Versions and hardware of the stages, then of the evaluations, which know the hardware best."""
    found: dict[str, Any] = {}
    summaries = [result.summary for model in run.models for result in model.benchmarks.values()]
    for env in [*(stage.env for stage in run.stages.values()), *(row.get("environment") or {} for row in summaries)]:
        found |= {key: env[key] for key in ENVIRONMENT if env.get(key)} | dict(env.get("packages") or {})
    return found


def _shown(value: Any) -> str:
    if value is None:
        return NONE
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else shortened(text)
