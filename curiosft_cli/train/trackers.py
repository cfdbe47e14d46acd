"""Trackers beside metrics.jsonl, through accelerate: the same keys, samples as a table, one tracker run over a resume.

The id of the tracker's run is kept in the stage's folder, so a resumed training continues the same run. Its steps are
those of the checkpoint and on. What the killed process logged beyond that step is logged again with the same values.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.config import flatten
from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.files import read_json, write_json
from curiosft_cli.run.rundir import TRACKER
from curiosft_cli.run.text import one_line

if TYPE_CHECKING:
    from accelerate import Accelerator

    from curiosft_cli.data.records import Grade, Problem
    from curiosft_cli.run.rundir import StageDir
    from curiosft_cli.run.sections import Config

Rows = Sequence[Sequence[str | int | float | None]]
SAMPLE_COLUMNS = ("id", "question", "gold", "response", "answer", "strict", "reason")
"""Of a table of graded samples."""


def table_row(problem: Problem, text: str, grade: Grade) -> Sequence[str | float | None]:
    """The row of one sample in a table of these columns."""
    return problem.id, problem.question, problem.answer, text, grade.answer, grade.strict, grade.reason


def check_trackers(wanted: Sequence[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        CurioError: exit code 3.
    """
    from accelerate.tracking import get_available_trackers

    there = {str(tracker) for tracker in get_available_trackers()}
    for name in wanted:
        if name not in there:
            raise CurioError(
                f"log.trackers names {name}, whose package is not installed", f"pip install {name}", MISSING
            )


def open_trackers(accelerator: Accelerator, config: Config, stage: StageDir, done: int) -> None:
    """Start the trackers of `log.trackers`, or continue their runs after `done` steps. The first rank calls it."""
    if not config.log.trackers:
        return
    file, name = stage.path / TRACKER, f"{config.run.name}-{stage.path.name}"
    identity = read_json(file)["id"] if file.exists() else f"{name}-{secrets.token_hex(4)}"
    write_json(file, {"id": identity})
    values = _plain(config)
    run = {"group": config.run.name, "config": values, "resume": "allow"}
    starts = {
        "wandb": {**run, "id": identity, "name": name, "dir": str(stage.path)},
        "trackio": {**run, "name": identity, "embed": False, "auto_log_cpu": False, "auto_log_gpu": False},
        "tensorboard": {"purge_step": done + 1} if done else {},
    }
    with redirect_stdout(sys.stderr):  # trackers greet on stdout, which is for results
        accelerator.init_trackers(config.log.project, init_kwargs=starts)
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":  # it has no settings, and accelerate's way would add a run to its list
            _tensorboard_table(tracker, done, "config", ("key", "value"), list(values.items()))


def log_table(accelerator: Accelerator, step: int, name: str, columns: Sequence[str], rows: Rows) -> None:
    """Give every tracker a table, of samples for example. All text in it is shown as it is."""
    for tracker in accelerator.trackers if rows else ():
        TABLES[tracker.name](tracker, step, name, columns, rows)


def _plain(config: Config) -> dict[str, Any]:
    values = flatten(config.model_dump(mode="json"))
    return {key: value if isinstance(value, (str, int, float)) else json.dumps(value) for key, value in values}


def _wandb_table(tracker: Any, step: int, name: str, columns: Sequence[str], rows: Rows) -> None:
    tracker.log_table(name, columns=list(columns), data=[list(row) for row in rows], step=step)


def _trackio_table(tracker: Any, step: int, name: str, columns: Sequence[str], rows: Rows) -> None:
    import trackio

    tracker.log({name: trackio.Table(columns=list(columns), data=[list(row) for row in rows])}, step=step)


def _tensorboard_table(tracker: Any, step: int, name: str, columns: Sequence[str], rows: Rows) -> None:
    """TensorBoard reads text as Markdown, so that each cell stands in a block of code."""
    texts = [
        "\n".join(f"    {column}: {one_line(str(value))}" for column, value in zip(columns, row, strict=True))
        for row in rows
    ]
    tracker.log({name: "\n\n---\n\n".join(texts)}, step=step)


TABLES: Mapping[str, Callable[[Any, int, str, Sequence[str], Rows], None]] = {
    "wandb": _wandb_table,
    "trackio": _trackio_table,
    "tensorboard": _tensorboard_table,
}
