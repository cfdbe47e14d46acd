"""`curiosft runs`: the runs of a folder, one line each, the newest first. Nothing is changed, and nothing is fatal."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from curiosft_cli.evaluation.results import SUMMARY
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_json, read_jsonl
from curiosft_cli.run.lock import is_held
from curiosft_cli.run.rundir import TRAINING_STAGES, RunDir, StageDir
from curiosft_cli.run.sections.base import OTHER_FOLDERS
from curiosft_cli.run.text import one_line
from curiosft_cli.tools.tables import as_text

NOT_LISTED = ("rl-preflight",)
HEADER = ("run", "stage", "step", "best", "entropy", "age", "size")
LEFT = 4
"""Columns that are aligned to the left."""
SECONDS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass
class RunLine:
    """What is known about one run.

    Attributes:
        name: of its folder.
        stage: the stage that changed last.
        state: of that stage; `killed` where it says `running` and no process holds its lock.
        trained: the training stage that changed last, and `step`, its last logged step.
        best: highest Avg of a checkpoint or a step in percent, the mean over benchmarks; `best_of` names which.
        entropy_nats: of the tokens trained on in that step.
        changed: when a stage last wrote something, seconds since 1970.
        size: bytes of all files.
        trouble: what could not be read.
    """

    name: str
    stage: str = ""
    state: str = ""
    trained: str = ""
    step: int | None = None
    best: float | None = None
    best_of: str = ""
    entropy_nats: float | None = None
    changed: float = 0.0
    size: int = 0
    trouble: list[str] = field(default_factory=list)


def runs(root: Path, *, as_json: bool = False) -> str:
    """The table of the runs in `root`, or one JSON object a run. On a terminal, long names are cut to its width.

    Raises:
        CurioError: `root` is not a folder.
    """
    lines = read_runs(root)
    if as_json:
        return "\n".join(json.dumps(asdict(line), ensure_ascii=False) for line in lines)
    if not lines:
        return f"{root} has no run"
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None
    trouble = [one_line(f"{line.name}: {what}") for line in lines for what in line.trouble]
    return "\n".join([table(lines, time.time(), width), *([""] if trouble else []), *trouble])


def read_runs(root: Path) -> list[RunLine]:
    """Every folder of `root`, that of the latest change first.

    Raises:
        CurioError: `root` is not a folder.
    """
    if not root.is_dir():
        raise CurioError(f"{root} is not a folder", "Name the folder with the runs: curiosft runs FOLDER.")
    folders = (entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(map(_read, folders), key=lambda line: (-line.changed, line.name))


def table(lines: Sequence[RunLine], now: float, width: int | None = None) -> str:
    """The table in at most `width` characters, as far as cutting names can do it."""
    rows = [HEADER, *(_cells(line, now) for line in lines)]
    text = as_text(rows, LEFT, sys.maxsize)
    over = max(map(len, text.splitlines())) - width if width is not None else 0
    if over <= 0:
        return text
    longest = max(max(len(name) for name, *_ in rows) - over, len(HEADER[0]))
    return as_text([(_cut(name, longest), *rest) for name, *rest in rows], LEFT, sys.maxsize)


def _read(folder: Path) -> RunLine:
    """One run. What cannot be read is listed as trouble, and the rest still counts."""
    line = RunLine(folder.name, state="broken")
    try:
        _fill(line, folder)
    except OSError as error:
        line.trouble.append(f"{error.filename}: {error.strerror}")
    return line


def _fill(line: RunLine, folder: Path) -> None:
    line.changed = folder.stat().st_mtime
    stages = {stage.path.name: stage for stage in _stages(folder)}
    line.size = sum(_sizes(folder))
    if not stages:
        line.trouble.append("no stage has a config.json here")
        return
    changes = {name: _changed(stage) for name, stage in stages.items()}
    line.stage = max(changes, key=changes.__getitem__)
    line.changed, line.state = changes[line.stage], _state(stages[line.stage])
    trained = [name for name in TRAINING_STAGES if name in stages]
    for name in sorted(trained, key=changes.__getitem__):
        _add_metrics(line, name, stages[name])
    for name in stages.keys() - {*OTHER_FOLDERS}:
        _add_scores(line, stages[name])


def _stages(folder: Path) -> Iterator[StageDir]:
    for entry in sorted(folder.iterdir()):
        stage = RunDir(folder).stage(entry.name)
        if entry.is_dir() and entry.name not in NOT_LISTED and stage.config_file.exists():
            yield stage


def _changed(stage: StageDir) -> float:
    files = (stage.config_file, stage.metrics_file, stage.log_file, stage.path / "status.json")
    return max(file.stat().st_mtime for file in files if file.exists())


def _state(stage: StageDir) -> str:
    state = str(stage.status()["state"])
    return "killed" if state == "running" and not is_held(stage.path) else state


def _add_metrics(line: RunLine, name: str, stage: StageDir) -> None:
    try:
        for row in read_jsonl(stage.metrics_file):
            line.trained, line.step = name, row["step"]
            line.entropy_nats = _number(row.get("train/entropy_nats"))
            _offer(line, _number(row.get("eval/avg")), f"{name}@{line.step}")
    except (CurioError, KeyError) as error:
        line.trouble.append(_named(error, stage.metrics_file))


def _add_scores(line: RunLine, stage: StageDir) -> None:
    file = stage.path / SUMMARY
    if not file.exists():
        return
    try:
        averages: dict[str, list[float]] = {}
        for row in read_json(file)["results"]:
            if (average := _number(row["avg"])) is not None:
                averages.setdefault(str(row["checkpoint"]), []).append(average)
        for reference, scores in averages.items():
            _offer(line, fmean(scores), reference)
    except (CurioError, KeyError, TypeError) as error:
        line.trouble.append(_named(error, file))


def _offer(line: RunLine, score: float | None, of: str) -> None:
    if score is not None and (line.best is None or score > line.best):
        line.best, line.best_of = score, of


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _named(error: Exception, file: Path) -> str:
    return str(error) if isinstance(error, CurioError) else f"{file} is damaged, or of another version"


def _sizes(folder: Path) -> Iterator[int]:
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(path, name)).st_size
            except FileNotFoundError:  # a running stage removed it in the meantime
                continue


def _cells(line: RunLine, now: float) -> Sequence[str]:
    return (
        one_line(line.name),
        f"{line.stage} {line.state}".strip(),
        "-" if line.step is None else f"{line.trained} {line.step}",
        "-" if line.best is None else f"{line.best:.1f} {line.best_of}",
        "-" if line.entropy_nats is None else f"{line.entropy_nats:.3f}",
        _amount(max(0.0, now - line.changed), SECONDS),
        _bytes(line.size),
    )


def _amount(value: float, units: Sequence[tuple[str, int]]) -> str:
    """The value in the largest unit of which it has at least two."""
    name, factor = next((unit for unit in units if value >= 2 * unit[1]), units[-1])
    return f"{value / factor:.0f} {name}"


def _bytes(size: float) -> str:
    unit = 0
    while size >= 1024 and unit + 1 < len(UNITS):
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} B" if unit == 0 else f"{size:.1f} {UNITS[unit]}"


def _cut(text: str, longest: int) -> str:
    """The text with its middle left out where it is too long: runs often differ at the end of their names."""
    if len(text) <= longest:
        return text
    tail = (longest - 1) // 2
    return f"{text[: longest - 1 - tail]}…{text[len(text) - tail :]}"
