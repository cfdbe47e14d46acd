"""`curiosft runs`: one line a run in 80 and 120 characters, and folders that are no runs, or damaged ones."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from command import curiosft

from curiosft_cli.run.config import resolve
from curiosft_cli.run.files import read_jsonl

CONFIG = resolve({}, {}, origin="default").config.model_dump(mode="json")
LONG = "qwen2.5-math-7b-curio-gamma-2.0-seed-17-questions-of-march"


def write_stage(folder: Path, state: str, age_s: float, rows: Sequence[Mapping[str, object]] = ()) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "status.json").write_text(json.dumps({"state": state}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for file in folder.iterdir():
        os.utime(file, (time.time() - age_s, time.time() - age_s))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A finished run, one that trains, one that was killed, and three that are broken."""
    root = tmp_path / "runs"
    steps = [{"step": step, "train/entropy_nats": 1 / step} for step in (1, 2)]
    write_stage(root / "done" / "sft", "complete", 7300, ({**steps[0], "eval/avg": 40.0}, steps[1]))
    write_stage(root / "done" / "rl", "complete", 7250, ({"step": 9, "train/entropy_nats": 0.25},))
    evaluated = write_stage(root / "done" / "eval", "complete", 7200)
    scores = [("base", 1.0), ("rl", 50.0), ("rl", 61.0), ("sft", 30.0), ("sft", None)]
    (evaluated / "summary.json").write_text(
        json.dumps({"results": [{"checkpoint": name, "avg": avg} for name, avg in scores]})
    )
    (write_stage(root / LONG / "sft", "running", 1, steps) / "lock").touch()
    write_stage(root / "killed" / "sft", "running", 130, steps)
    (root / "empty").mkdir()
    damaged = write_stage(root / "damaged" / "sft", "failed", 3 * 86400, ({"step": 1, "train/entropy_nats": 0.5},))
    with (damaged / "metrics.jsonl").open("a") as file:
        file.write("{not json\n")
    os.utime(damaged / "metrics.jsonl", (0, 0))
    older = write_stage(root / "older\x1b[31m" / "eval", "complete", 86400)
    (older / "summary.json").write_text('{"scores": []}')
    (root / "notes.txt").write_text("no folder")
    return root


@pytest.mark.parametrize("width", [80, 120])
def test_columns_are_tidy(root: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    done = curiosft("runs", root)
    assert done.returncode == 0
    head, *lines = done.stdout.split("\n\n")[0].splitlines()
    assert head.split() == ["run", "stage", "step", "best", "entropy", "age", "size"]
    assert max(map(len, (head, *lines))) <= width and len(lines) == 6
    for title in ("stage", "step", "best"):
        place = head.index(title)
        assert all(line[place - 2 : place] == "  " and line[place] != " " for line in lines if "broken" not in line), (
            title
        )
    assert [line.split()[0] for line in lines[-4:]] == ["killed", "done", "older\\u001b[31m", "damaged"]
    first = next(line for line in lines if line.startswith("qwen2.5"))
    assert first.split()[0] == LONG or (width == 80 and "…" in first and first.split()[0].endswith("march"))


def test_what_a_line_says(root: Path) -> None:
    lines = {row["name"]: row for row in map(json.loads, curiosft("runs", root, "--json").stdout.splitlines())}
    done = lines["done"]
    assert (done["stage"], done["state"], done["trained"], done["step"]) == ("eval", "complete", "rl", 9)
    assert (done["best"], done["best_of"], done["entropy_nats"]) == (55.5, "rl", 0.25)
    assert done["size"] == sum(file.stat().st_size for file in (root / "done").rglob("*") if file.is_file())
    assert (lines[LONG]["state"], lines["killed"]["state"]) == ("running", "killed")
    assert (lines["killed"]["step"], lines["killed"]["best"]) == (2, None)
    text = curiosft("runs", root).stdout
    assert "killed   " in text and "2 min" in text and "2 h" in text and "3 d" in text
    assert "55.5 rl" in text


def test_broken_folders_are_listed(root: Path) -> None:
    trouble = curiosft("runs", root).stdout.split("\n\n")[1]
    assert "empty: no stage has a config.json here" in trouble
    assert "metrics.jsonl, line 2 is no JSON" in trouble
    assert "older\\u001b[31m: " in trouble and "summary.json is damaged, or of another version" in trouble
    damaged = next(
        row for row in map(json.loads, curiosft("runs", root, "--json").stdout.splitlines()) if row["name"] == "damaged"
    )
    assert (damaged["step"], damaged["entropy_nats"]) == (1, 0.5)
    assert list(read_jsonl(root / "killed" / "sft" / "metrics.jsonl"))  # nothing was changed


def test_a_folder_that_may_not_be_read_is_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Path.iterdir

    def forbidden(self: Path) -> Iterator[Path]:
        if self.name == "killed":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return inside(self)

    monkeypatch.setattr(Path, "iterdir", forbidden)
    done = curiosft("runs", root)
    assert done.returncode == 0 and "killed: " in done.stdout and "Permission denied" in done.stdout
    assert len(done.stdout.split("\n\n")[0].splitlines()) == 7


def test_no_folder_and_no_runs(tmp_path: Path) -> None:
    assert curiosft("runs", tmp_path).stdout == f"{tmp_path} has no run\n"
    failed = curiosft("runs", tmp_path / "none")
    assert failed.returncode == 2 and "is not a folder" in failed.stderr
