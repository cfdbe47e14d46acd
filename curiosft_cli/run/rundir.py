"""The run folder: where each file of a run lies, and what a checkpoint reference means."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curiosft_cli.run.config import from_json
from curiosft_cli.run.digests import CHECKPOINT, STATE, file_digests
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import (
    COMPLETE,
    PARTIAL_SUFFIX,
    check_all_regular,
    is_complete,
    read_json,
    write_json,
    write_text,
)
from curiosft_cli.run.lock import LOCK, locked
from curiosft_cli.run.log import Console
from curiosft_cli.run.resume_policy import refused_changes, reopens
from curiosft_cli.run.sections import Config

TRAINER_STATE = "trainer_state.json"
TRACKER = "tracker.json"
"""The id of the run in the trackers."""
TRAINING_STAGES = ("sft", "rl")
OF_EVERY_STAGE = ("env.json", "log.txt", "metrics.jsonl", "status.json")
# fmt: off
OF_TRAINING = (
    "rollouts", "samples", "tokens", "skipped-*.json", "server-weights", TRACKER,
    "wandb", "*/hparams.yml", "*/events.out.tfevents.*", "*/*/events.out.tfevents.*",
)
# What a stage makes beside its checkpoints, and `--fresh` removes. The answers of rephrase stay: they cost money, and
# each line names its request, so no answer is used for another.
MADE = {
    "rephrase": ("questions.jsonl", "questions.parquet", "rejected.jsonl", "usage.json", "review.html", "server.log"),
    "sft": OF_TRAINING,
    "rl": (*OF_TRAINING, "preflight.json"),
    "eval": (
        "summary.json", "*/*/model.json", "*/*/entropy.json", "*/*/summary.json",
        "*/*/questions.jsonl", "*/*/samples.jsonl*", "*/*/grades.jsonl*",
    ),
}
# fmt: on


@dataclass(frozen=True)
class RunDir:
    """`runs/NAME` and its layout."""

    path: Path

    def stage(self, name: str) -> StageDir:
        """The folder of one stage (`eval.name` for evaluations)."""
        return StageDir(self.path / name)

    def keep_source(self, text: str) -> None:
        """Save the user's own configuration text, unchanged."""
        write_text(self.path / "config.toml", text)


@dataclass(frozen=True)
class StageDir:
    """The folder of one stage: config.json, env.json, log.txt, metrics.jsonl, status.json and the results."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The complete configuration that the stage's processes read."""
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a step."""
        return self.path / "metrics.jsonl"

    @property
    def log_file(self) -> Path:
        """A copy of what the stage prints to stderr."""
        return self.path / "log.txt"

    def status(self) -> dict[str, Any]:
        """`{"state": "new" | "running" | "complete" | "failed" | "interrupted", ...}`."""
        file = self.path / "status.json"
        with contextlib.suppress(CurioError):
            if file.exists() and "state" in (status := read_json(file)):
                return status
        return {"state": "running" if file.exists() else "new"}  # a damaged file says no more than that it began

    def set_status(self, state: str, **more: Any) -> None:
        """Replace status.json. "complete" is recorded with the results, so that nobody can just write it there."""
        results = {"results": self.results()} if state == "complete" else {}
        write_json(self.path / "status.json", {"state": state, **more, **results})

    def results(self) -> dict[str, str]:
        """Digests of what a complete stage must have: the last checkpoint's marker, or the files of its results."""
        last = [self.checkpoint(step) / COMPLETE for step in self.checkpoints()[-1:]]
        files = [file for pattern in ("questions.*", "summary.json", "*/*/*") for file in self.path.glob(pattern)]
        return file_digests(self.path, last or [file for file in files if file.is_file()])

    def is_complete(self) -> bool:
        """Whether status.json says so, and the results are still those of that moment.

        Raises:
            CurioError: a result was changed or deleted since then.
        """
        status = self.status()
        recorded = status.get("results")
        if status["state"] != "complete" or not isinstance(recorded, dict):
            return False  # without a record the stage is started again: what is done already, it does not do again
        found = self.results()
        if changed := [name for name, digest in recorded.items() if digest != found.get(name)]:
            raise CurioError(
                f"{self.path} was complete, and {changed[0]} was changed or deleted since then",
                "Restore it; or delete status.json there, and the same command makes what is missing.",
            )
        return True

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint after this optimizer step."""
        return self.path / f"checkpoint-{step}"

    def checkpoints(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        if not self.path.is_dir():
            return []
        found = ((CHECKPOINT.match(entry.name), entry) for entry in self.path.iterdir())
        return sorted(int(match[1]) for match, entry in found if match and is_complete(entry))

    def check_newest(self) -> None:
        """Refuse a newest checkpoint that lost its marker: the run would start before it, and write over it.

        Older ones without it are half pruned.

        Raises:
            CurioError: it has none.
        """
        steps = [int(match[1]) for entry in self.path.iterdir() if (match := CHECKPOINT.match(entry.name))]
        if steps and not is_complete(newest := self.checkpoint(max(steps))):
            raise CurioError(
                f"{newest} has lost its {COMPLETE}: somebody changed or half deleted it",
                "Restore it; or delete it, and the run continues from the checkpoint before; or use --fresh.",
            )

    def has_results(self) -> bool:
        """Whether the folder has a checkpoint or a line of results."""
        lines = self.path.rglob("*.jsonl*") if self.path.is_dir() else ()
        return bool(self.checkpoints()) or any(file.stat().st_size for file in lines)

    def best(self) -> int | None:
        """Step of the checkpoint with the highest score, the first of equals; None if no checkpoint was evaluated."""
        states = {step: self.checkpoint(step) / TRAINER_STATE for step in self.checkpoints()}
        kept = {step: read_json(file) for step, file in states.items() if file.exists()}
        scores = {step: state["score"] for step, state in kept.items() if state.get("score") is not None}
        return max(scores, key=scores.__getitem__, default=None)

    def prune(self, keep_last: int, keep_every: int | None = None) -> None:
        """Delete the resume state of all but the newest checkpoint, then the oldest checkpoints.

        Checkpoints at multiples of `keep_every` steps stay, and so does the best one.
        """
        steps, best = self.checkpoints(), self.best()
        for step in steps[:-1]:
            shutil.rmtree(self.checkpoint(step) / STATE, ignore_errors=True)
        for step in steps[: max(0, len(steps) - keep_last)]:
            if step != best and (not keep_every or step % keep_every):
                shutil.rmtree(self.checkpoint(step))

    def skipped_rows(self, key: str) -> Path:
        """The rows of `data.KEY` that could not be used, by reason."""
        return self.path / f"skipped-{key}.json"

    def samples(self, step: int, benchmark: str) -> Path:
        """The samples of one benchmark from the model after this step."""
        return self.path / "samples" / f"step-{step:06d}" / f"{benchmark}.jsonl.zst"

    def questions(self, step: int, benchmark: str) -> Path:
        """The scores of each question of one benchmark from the model after this step."""
        return self.samples(step, benchmark).with_name(f"{benchmark}.questions.jsonl")

    def token_map(self, step: int) -> Path:
        """The values of each token of some held-out rows after this step."""
        return self.path / "tokens" / f"step-{step:06d}.jsonl.zst"

    def rollouts(self, step: int, rank: int | None = None) -> Path:
        """All rollouts of one RL step, or those of one rank while it samples."""
        whole = self.path / "rollouts" / f"step-{step:06d}.jsonl.zst"
        return whole if rank is None else whole.with_name(f"step-{step:06d}.rank-{rank:05d}.jsonl")

    def partial_rollouts(self, step: int) -> list[Path]:
        """What the ranks of this step, or of an earlier start with other ranks, have sampled of it."""
        return sorted((self.path / "rollouts").glob(f"step-{step:06d}.rank-*.jsonl"))

    def benchmark(self, checkpoint: str, benchmark: str) -> Path:
        """Results of one checkpoint reference on one benchmark."""
        return self.path / checkpoint.strip("/").replace("/", "__").replace(":", "__") / benchmark


@contextmanager
def opened(
    run: RunDir, stage: str, config: Config, *, fresh: bool = False, folder: str | None = None, first: bool = True
) -> Generator[tuple[StageDir, bool]]:
    """`begin`, and the lock of the folder until the end of the block, where there is something to do.

    Args:
        first: this command starts the processes of the first machine. The others write nothing of their own.

    Raises:
        CurioError: another command works in this folder, or see `begin`.
    """
    directory = run.stage(folder or stage)
    if not first:
        if not fresh and _same_settings(directory, stage, config):
            yield directory, True
            return
        _wait_for_first(directory, stage, config)
        yield directory, False
    elif not fresh and _same_settings(directory, stage, config):
        yield directory, True
    else:
        with locked(directory.path):
            for partial in [*directory.path.rglob(f".*{PARTIAL_SUFFIX}")]:
                _remove(partial)
            yield begin(run, stage, config, fresh=fresh, folder=folder)


def _wait_for_first(
    directory: StageDir, stage: str, config: Config, *, limit_s: float = 600.0, poll_s: float = 0.2
) -> None:
    """Return when the first machine's command has written these settings, which all processes read.

    Raises:
        CurioError: it has not within `limit_s` seconds.
    """
    ends = time.monotonic() + limit_s
    while not directory.config_file.exists() or refused_changes(
        stage, from_json(directory.config_file), config, complete=False
    ):
        if time.monotonic() > ends:
            raise CurioError(
                f"the first machine has not written {directory.config_file}",
                "Start the same command there. The run folder must be on a file system that all machines see.",
            )
        time.sleep(poll_s)


def begin(
    run: RunDir, stage: str, config: Config, *, fresh: bool = False, folder: str | None = None
) -> tuple[StageDir, bool]:
    """Open a stage's folder for this configuration; return it, and whether the stage is complete already.

    A folder without results takes the new settings: its run failed at the start.

    Raises:
        CurioError: the folder has results of other settings that this stage reads.
    """
    directory = run.stage(folder or stage)
    if fresh:
        empty(directory, stage)
    complete = _same_settings(directory, stage, config)
    if not complete:
        directory.path.mkdir(parents=True, exist_ok=True)
        write_json(directory.config_file, config.model_dump(mode="json"))
    return directory, complete


def _same_settings(directory: StageDir, stage: str, config: Config) -> bool:
    """Whether the stage is complete; False also if it has no results yet.

    Raises:
        CurioError: it has results of other settings.
    """
    check_all_regular(directory.path)
    if not (directory.config_file.exists() and directory.has_results()):
        return False
    directory.check_newest()
    before, done = from_json(directory.config_file), directory.is_complete()
    if changes := refused_changes(stage, before, config, complete=done):
        raise CurioError(
            f"{directory.path} was made with other settings: {'; '.join(changes)}",
            "Use the old values, another run.name, or --fresh to start this stage over.",
        )
    return done and not reopens(stage, before, config)


def empty(directory: StageDir, stage: str) -> None:
    """Remove what this stage made in its folder, and say what; other files stay.

    Raises:
        CurioError: the folder is not a stage's.
    """
    if not directory.config_file.exists():
        if directory.path.is_dir() and any(entry.name != LOCK for entry in directory.path.iterdir()):
            raise CurioError(f"{directory.path} is not the folder of a stage", "Remove it, or use another name.")
        return
    made = [path for path in sorted(directory.path.iterdir()) if CHECKPOINT.match(path.name)]
    for pattern in (*OF_EVERY_STAGE, *MADE[stage]):
        made += sorted(directory.path.glob(pattern))
    for path in made:
        _remove(path)
        for parent in path.parents:
            if parent == directory.path or any(parent.iterdir()):
                break
            parent.rmdir()
    removed = [path.relative_to(directory.path).as_posix() for path in made]
    if removed:
        Console().say(f"{stage}: --fresh removed from {directory.path}: {', '.join(removed)}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def resolve_checkpoint(reference: str, config: Config) -> str:
    """Turn a checkpoint reference into a folder or hub id that transformers and vLLM open.

    `base` is `model.path`. `sft` and `rl` are this run's last complete checkpoint, `sft@300` the one of step 300, and
    `sft@best` the one with the highest score. `OTHER:sft` is another run's. Anything else is a folder or a hub id.

    Raises:
        CurioError: the run, the stage or the step has no complete checkpoint.
    """
    if reference == "base":
        return config.model.path
    name, colon, rest = reference.partition(":")
    run_name, stage_ref = (name, rest) if colon else (config.run.name, reference)
    stage, at, wanted = stage_ref.partition("@")
    if stage not in TRAINING_STAGES:
        if colon:
            raise CurioError(f"checkpoint '{reference}': '{stage}' is not a stage", "Write RUN:sft or RUN:rl.")
        return reference
    directory = RunDir(Path(config.run.root) / run_name).stage(stage)
    steps = directory.checkpoints()
    if not steps:
        raise CurioError(
            f"checkpoint '{reference}': {directory.path} has no complete checkpoint",
            f"Run `curiosft {stage}` for run '{run_name}' first, or name a folder.",
        )
    if not at:
        return str(directory.checkpoint(steps[-1]))
    if wanted == "best":
        best = directory.best()
        if best is None:
            raise CurioError(
                f"checkpoint '{reference}': none of {directory.path} was evaluated while it trained",
                f"Train with {stage}.eval_steps and {stage}.eval_benchmarks, or name a step: "
                f"{', '.join(map(str, steps))}.",
            )
        return str(directory.checkpoint(best))
    if not wanted.isdigit() or int(wanted) not in steps:
        raise CurioError(f"checkpoint '{reference}' does not exist", f"Complete steps: {', '.join(map(str, steps))}.")
    return str(directory.checkpoint(int(wanted)))
