"""Changed and rotten files: every one is noticed, or the true content comes back from the checkpoint."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from command import last_of_each

from faults.forked import forked, load_everything
from faults.inputs import COMMANDS, EVAL, Damage, Input, build_valid, cut, gone, holds
from faults.malformed import require_success, run_all, trouble
from faults.report import Row
from faults.stages import Models

STAGE = "runs/run/sft"
CHECKPOINT = f"{STAGE}/checkpoint-3"
RESULTS = "runs/sampled/eval"
RESUME = COMMANDS["run folder"]
EVAL_OF_SFT = ("eval", "curio", *last_of_each(*EVAL, "eval.checkpoints=run:sft"), "run.name=new")
EVAL_AGAIN = ("eval", "curio", *EVAL, "run.name=sampled")
COMPARED = ("compare", "c", RESULTS)


def tampering(folder: Path, models: Models, seed: int, jobs: int) -> list[Row]:
    """Change each file of a checkpoint and of finished results in several ways, then run what reads it."""
    load_everything()
    valid, draw = folder / "valid", random.Random(seed)
    build_valid(valid, models.tiny)
    require_success(valid, folder, (RESUME, EVAL_OF_SFT, EVAL_AGAIN, COMPARED))
    rows = []
    for name, cases in (
        ("a file of a checkpoint is changed; the run continues", _of_checkpoint(valid, RESUME, draw)),
        ("a file of a checkpoint is changed; it is evaluated", _of_checkpoint(valid, EVAL_OF_SFT, draw, "state/")),
        ("a file of finished results is changed; the command comes again", _of_results(valid, EVAL_AGAIN, draw)),
        ("a file of finished results is changed; it is compared", _of_results(valid, COMPARED, draw)),
    ):
        rows.append(Row(name))
        for case, ended in run_all(valid, folder, cases, jobs):
            rows[-1].count(trouble(case, ended))
    return [*rows, _metrics_and_status(valid, folder)]


def _of_checkpoint(valid: Path, command: tuple[str, ...], draw: random.Random, unread: str = "-") -> list[Input]:
    """Every file in every way, the marker included; weights also replaced by other sound ones."""
    files = [file for file in _files(valid, CHECKPOINT) if not file.removeprefix(f"{CHECKPOINT}/").startswith(unread)]
    other = {f"{CHECKPOINT}/model.safetensors": valid / "model/model.safetensors"}
    return [
        Input("checkpoint", f"{file}: {how}", damage, command)
        for file in files
        for how, damage in _ways(file, draw, other.get(file)).items()
    ]


def _of_results(valid: Path, command: tuple[str, ...], draw: random.Random) -> list[Input]:
    files = [*_files(valid, f"{RESULTS}/base"), f"{RESULTS}/summary.json"]
    ways = [(file, how, damage) for file in files for how, damage in _ways(file, draw).items()]
    better = (f"{RESULTS}/base/arithmetic/questions.jsonl", "every answer is right", _right)
    return [Input("results", f"{file}: {how}", damage, command) for file, how, damage in [*ways, better]]


def _files(valid: Path, folder: str) -> list[str]:
    return sorted(str(file.relative_to(valid)) for file in (valid / folder).rglob("*") if file.is_file())


def _ways(file: str, draw: random.Random, other: Path | None = None) -> dict[str, Damage]:
    share = draw.random()

    def flip(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[int(share * len(content))] ^= 1 << int(share * 8)
        (folder / file).write_bytes(content)

    ways: dict[str, Damage] = {
        "a bit is flipped": flip,
        "cut": cut(file, share),
        "empty": holds(file, ""),
        "deleted": gone(file),
    }
    return ways if other is None else {**ways, "other weights": holds(file, other.read_bytes())}


def _right(folder: Path) -> None:
    file = folder / RESULTS / "base/arithmetic/questions.jsonl"
    rows = [json.loads(line) | {"answer": 1.0, "strict": 1.0} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _metrics_and_status(valid: Path, folder: Path) -> Row:
    """What the checkpoint also has is not believed from elsewhere: the run continues from the true content."""
    metrics, status = f"{STAGE}/metrics.jsonl", f"{STAGE}/status.json"
    kept = (valid / CHECKPOINT / "state/metrics.jsonl").read_text()
    more = kept.encode() + b'{"step": 4, "train/loss_nats": 0.0}\n'
    attacks: dict[str, Damage] = {
        "metrics deleted": gone(metrics), "metrics cut": cut(metrics), "metrics binary": holds(metrics, bytes(range(256))),
        "metrics better": holds(metrics, kept.replace(": 6.", ": 1.")), "a step that never ran": holds(metrics, more),
        "status complete": holds(status, '{"state": "complete"}'), "status binary": holds(status, bytes(range(256))),
        "status deleted": gone(status), "status deep": holds(status, "[" * 100_000),
        "log deleted": gone(f"{STAGE}/log.txt"), "a leftover": holds(f"{STAGE}/.metrics.jsonl.7.partial", "x"),
    }  # fmt: skip
    row = Row("metrics, status or log are changed: the run continues from what its checkpoint has")
    for name, attack in attacks.items():
        here = folder / "attacked"
        shutil.copytree(valid, here)
        attack(here)
        done = forked(RESUME, here)
        lines = (here / metrics).read_text().splitlines(keepends=True)
        sound = done.returncode == 0 and len(lines) == 4 and "".join(lines[:3]) == kept
        row.count(None if sound else f"{name}: exit code {done.returncode}, {len(lines)} metrics: {done.stderr[-800:]}")
        shutil.rmtree(here)
    return row
