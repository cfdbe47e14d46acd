"""Read runs for a report. What cannot be read is left out, and a line says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any

from curiosft_cli.evaluation.results import ModelResult, distinct_labels, read_models
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_json, read_jsonl
from curiosft_cli.run.rundir import TRAINING_STAGES, RunDir
from curiosft_cli.run.text import plain

Metrics = list[dict[str, Any]]


@dataclass(frozen=True)
class StageRecord:
    """What one stage of a run left behind.

    Attributes:
        config: the whole configuration as it was written; a version before or after this one may have other keys.
        env: versions and hardware.
        state: of `status.json`.
    """

    config: Mapping[str, Any]
    env: Mapping[str, Any]
    state: str


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        label: its name, unlike those of the other runs.
        folder: the run folder.
        stages: name to record; also the evaluations.
        metrics: `sft` and `rl` to their steps, ascending.
        models: the evaluated checkpoints.
        left_out: what could not be read, a line each.
    """

    label: str
    folder: RunDir
    stages: Mapping[str, StageRecord]
    metrics: Mapping[str, Metrics]
    models: Sequence[ModelResult]
    left_out: list[str] = field(default_factory=list)

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration of the last stage that has one."""
        return next((stage.config for stage in reversed(list(self.stages.values())) if stage.config), {})


def read_runs(names: Sequence[str]) -> list[RunRecord]:
    """The runs of these folders, or of these names in `runs/`.

    Raises:
        CurioError: a folder does not exist, or holds nothing that can be shown.
    """
    runs = [_read_run(_folder(name)) for name in names]
    labels = [run.label for run in runs]
    return [
        run if labels.count(run.label) == 1 else replace(run, label=plain(str(run.folder.path)))
        for number, run in enumerate(runs)
        if run.folder.path.resolve() not in [other.folder.path.resolve() for other in runs[:number]]
    ]


def over_stages(run: RunRecord, key: str) -> tuple[list[int], list[float]]:
    """As `series`, over both stages: the steps of rl go on where sft ended."""
    steps: list[int] = []
    values: list[float] = []
    before = 0
    for stage in TRAINING_STAGES:
        metrics = run.metrics.get(stage, [])
        some, found = series(metrics, key)
        steps += [before + step for step in some]
        values += found
        before += metrics[-1]["step"] if metrics else 0
    return steps, values


def series(metrics: Metrics, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, without the steps that lack it."""
    found = [(row["step"], row[key]) for row in metrics if is_number(row.get(key))]
    return [step for step, _ in found], [value for _, value in found]


def _folder(name: str) -> Path:
    for folder in (Path(name), Path("runs") / name):
        if folder.is_dir():
            return folder
    raise CurioError(
        f"there is no run '{name}'", "Give a run folder, such as runs/NAME, or the name of a run in runs/."
    )


def _read_run(folder: Path) -> RunRecord:
    left_out: list[str] = []
    stages = {file.parent.name: _stage(file.parent, left_out) for file in sorted(folder.glob("*/config.json"))}
    present = [name for name in TRAINING_STAGES if (folder / name).is_dir()]
    metrics = {name: _metrics(folder / name, left_out) for name in present}
    for name in TRAINING_STAGES:
        if not metrics.get(name):
            left_out.append(f"no steps of {name}")
    models = _models(folder, left_out)
    if not models and not any(metrics.values()):
        raise CurioError(f"{folder} has no steps and no results", "Give the folder of a run that has begun.")
    return RunRecord(plain(folder.resolve().name), RunDir(folder), stages, metrics, models, left_out)


def _stage(folder: Path, left_out: list[str]) -> StageRecord:
    read = {name: _object(folder / f"{name}.json", left_out) for name in ("config", "env", "status")}
    state = str(read["status"].get("state", "unknown"))
    if state not in ("complete", "unknown"):
        left_out.append(f"{folder.name} is not complete ({state}): this is what it has so far")
    return StageRecord(read["config"], read["env"], state)


def _object(file: Path, left_out: list[str]) -> dict[str, Any]:
    try:
        return read_json(file) if file.exists() else {}
    except CurioError as error:
        left_out.append(error.what)
        return {}


def _metrics(folder: Path, left_out: list[str]) -> Metrics:
    rows = {row["step"]: row for row in _with_step(folder / "metrics.jsonl", left_out)}
    return [rows[step] for step in sorted(rows)]


def _with_step(file: Path, left_out: list[str]) -> Iterator[dict[str, Any]]:
    for row in read_jsonl(file, left_out):
        if isinstance(row.get("step"), int):
            yield row
        else:
            left_out.append(f"{file}: a line without a step")


def _models(folder: Path, left_out: list[str]) -> list[ModelResult]:
    """The evaluated checkpoints, those of the pipeline in its order: base, sft@20, sft, rl."""
    order = ("base", *TRAINING_STAGES)

    def place(model: ModelResult) -> tuple[int, float]:
        stage, _, step = model.label.partition("@")
        return order.index(stage) if stage in order else len(order), int(step) if step.isdecimal() else inf

    read = distinct_labels(read_models(folder, left_out))
    models = [replace(model, label=plain(model.label)) for model in read]
    return sorted(models, key=place)


def is_number(value: Any) -> bool:
    """Whether a chart can show it."""
    return isinstance(value, int | float) and isfinite(value)
