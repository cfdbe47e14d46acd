"""The run folder: where each file of a run lies, and what a checkpoint reference means."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curiosft_cli.run.config import from_json
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import is_complete, write_json, write_text
from curiosft_cli.run.resume_policy import refused_changes, reopens
from curiosft_cli.run.sections import Config

CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
TRAINER_STATE = "trainer_state.json"
TRAINING_STAGES = ("sft", "rl")
# Files that `--fresh` keeps: answers that cost money. Each line names its request, so no answer is used for another.
PAID_FOR = {"rephrase": "answers.jsonl"}


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
        """`{"state": "new" | "running" | "complete" | "failed", ...}`."""
        file = self.path / "status.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"state": "new"}

    def set_status(self, state: str, **more: Any) -> None:
        """Replace status.json."""
        write_json(self.path / "status.json", {"state": state, **more})

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint after this optimizer step."""
        return self.path / f"checkpoint-{step}"

    def checkpoints(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        if not self.path.is_dir():
            return []
        found = ((CHECKPOINT.match(entry.name), entry) for entry in self.path.iterdir())
        return sorted(int(match[1]) for match, entry in found if match and is_complete(entry))

    def has_results(self) -> bool:
        """Whether the folder has a checkpoint or a line of results."""
        lines = self.path.rglob("*.jsonl*") if self.path.is_dir() else ()
        return bool(self.checkpoints()) or any(file.stat().st_size for file in lines)

    def best(self) -> int | None:
        """Step of the checkpoint with the highest score, the first of equals; None if no checkpoint was evaluated."""
        states = {step: self.checkpoint(step) / TRAINER_STATE for step in self.checkpoints()}
        kept = {step: json.loads(file.read_text(encoding="utf-8")) for step, file in states.items() if file.exists()}
        scores = {step: state["score"] for step, state in kept.items() if state.get("score") is not None}
        return max(scores, key=scores.__getitem__, default=None)

    def prune(self, keep_last: int, keep_every: int | None = None) -> None:
        """Delete the resume state of all but the newest checkpoint, then the oldest checkpoints.

        Checkpoints at multiples of `keep_every` steps stay, and so does the best one.
        """
        steps, best = self.checkpoints(), self.best()
        for step in steps[:-1]:
            shutil.rmtree(self.checkpoint(step) / "state", ignore_errors=True)
        for step in steps[: max(0, len(steps) - keep_last)]:
            if step != best and (not keep_every or step % keep_every):
                shutil.rmtree(self.checkpoint(step))

    def skipped_rows(self, key: str) -> Path:
        """The rows of `data.KEY` that could not be used, by reason."""
        return self.path / f"skipped-{key}.json"

    def samples(self, step: int, benchmark: str) -> Path:
        """The samples of one benchmark from the model after this step."""
        return self.path / "samples" / f"step-{step:06d}" / f"{benchmark}.jsonl.zst"

    def rollouts(self, step: int, rank: int | None = None) -> Path:
        """All rollouts of one RL step, or those of one rank while it samples."""
        whole = self.path / "rollouts" / f"step-{step:06d}.jsonl.zst"
        return whole if rank is None else whole.with_name(f"step-{step:06d}.rank-{rank:05d}.jsonl")

    def benchmark(self, checkpoint: str, benchmark: str) -> Path:
        """Results of one checkpoint reference on one benchmark."""
        return self.path / checkpoint.strip("/").replace("/", "__").replace(":", "__") / benchmark


def begin(
    run: RunDir, stage: str, config: Config, *, fresh: bool = False, folder: str | None = None
) -> tuple[StageDir, bool]:
    """Open a stage's folder for this configuration; return it, and whether the stage is complete already.

    A folder without results takes the new settings: its run failed at the start.

    Raises:
        CurioError: the folder has results of other settings that this stage reads.
    """
    directory = run.stage(folder or stage)
    if fresh and directory.path.exists():
        empty(directory.path, keep=PAID_FOR.get(stage))
    if directory.config_file.exists() and directory.has_results():
        before = from_json(directory.config_file)
        done = directory.status()["state"] == "complete"
        if changes := refused_changes(stage, before, config, complete=done):
            raise CurioError(
                f"{directory.path} was made with other settings: {'; '.join(changes)}",
                "Use the old values, another run.name, or --fresh to start this stage over.",
            )
        complete = done and not reopens(stage, before, config)
        if not complete:
            write_json(directory.config_file, config.model_dump(mode="json"))
        return directory, complete
    directory.path.mkdir(parents=True, exist_ok=True)
    write_json(directory.config_file, config.model_dump(mode="json"))
    return directory, False


def empty(folder: Path, keep: str | None) -> None:
    """Delete a stage's folder, or everything in it except one file."""
    if keep is None or not (folder / keep).exists():
        shutil.rmtree(folder)
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != keep:
            entry.unlink()


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
