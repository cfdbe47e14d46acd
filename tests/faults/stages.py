"""The four stages on tiny models: their commands, how far they are, and what must be equal bit for bit in the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxes import RECIPE, build_box_model, write_questions
from scripted import Reply, ScriptedServer
from tiny import build_tiny_model

from curiosft_cli.data.arithmetic import generate, noisy
from curiosft_cli.data.prompts import REPHRASE_PROMPT
from curiosft_cli.run.digests import file_digest
from curiosft_cli.run.files import present, read_jsonl
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.stages.rephrase.answer_log import STRICTER
from curiosft_cli.stages.rephrase.judge.verify import PROMPT

SFT = (
    "model.system_prompt=''", "data.train=arithmetic:train:90", "sft.precision=float32", "sft.batch_size=3",
    "sft.max_steps=30", "sft.max_response_length=64", "sft.max_tokens_per_batch=512", "sft.learning_rate=1e-3",
    "sft.warmup_steps=1", "sft.save_steps=4", "sft.keep_last=1", "sft.head_chunk=64", "sft.teacher.topk=64",
    "sft.teacher.sync_every=2", "sft.lora.rank=2", "sft.lora.dropout=0.2", "launch.threads=1",
)  # fmt: skip
RL = ("rl.steps=8", "rl.save_steps=2", "rl.keep_last=1", "rl.resume_rollouts=redo", "rl.preflight=off")
EVAL = (
    "model.system_prompt=''", "eval.checkpoints=base", "eval.benchmarks=arithmetic", "eval.limit=40", "eval.samples=4",
    "eval.max_completion_length=48", "eval.grader_workers=1", "eval.precision=float32", "eval.engine=transformers",
    "launch.threads=1",
)  # fmt: skip
QUESTIONS = 200
DECIDED_BY_THE_CLOCK = ("time/", "tokens/s", "memory/")


@dataclass(frozen=True)
class Models:
    """What the stages train and sample from.

    Attributes:
        tiny: a random model.
        box: a recipe of the rl stage, with a model that has learnt its answers' format.
    """

    tiny: Path
    box: Path


def build_models(folder: Path) -> Models:
    """Make both models in this folder."""
    box = folder / "box.toml"
    data = write_questions(folder / "questions.jsonl", 24)
    box.write_text(RECIPE.format(root=folder / "runs", model=build_box_model(folder / "box"), data=data))
    return Models(build_tiny_model(folder / "tiny"), box)


@dataclass(frozen=True)
class Work:
    """One run of one stage.

    Attributes:
        stage: name of the command.
        arguments: what stands behind it.
        folder: of the stage.
        server: the endpoint of `rephrase`.
    """

    stage: str
    arguments: tuple[str, ...]
    folder: Path
    server: ScriptedServer | None = None

    def done(self) -> int:
        """How many units were finished or asked for, also those that a restart must do again."""
        if self.server is not None:
            return len(self.server.bodies)
        return self.kept() if self.stage == "eval" else _last_step(self.folder)

    def kept(self) -> int:
        """How many units a restart need not do again."""
        if self.stage in ("sft", "rl"):
            return max(StageDir(self.folder).checkpoints(), default=0)
        return len(self.saved())

    def saved(self) -> set[str]:
        """The saved samples or answers."""
        lines = "base/arithmetic/samples.jsonl" if self.stage == "eval" else "answers.jsonl"
        return {json.dumps(row) for row in read_jsonl(present(self.folder / lines))}

    def stamp(self) -> tuple[int, int]:
        """Changes whenever there is new work."""
        lines = {"rephrase": "answers.jsonl", "eval": "base/arithmetic/samples.jsonl"}.get(self.stage, "metrics.jsonl")
        try:
            stat = (self.folder / lines).stat()
        except FileNotFoundError:
            return 0, 0
        return stat.st_mtime_ns, stat.st_size

    def result(self) -> Any:
        """Everything that must not depend on interruptions: weights, samples, answers, metrics."""
        return {"sft": _trained, "rl": _trained, "eval": _evaluated, "rephrase": _rephrased}[self.stage](self.folder)


def _last_step(folder: Path) -> int:
    return max((row["step"] for row in read_jsonl(folder / "metrics.jsonl")), default=0)


def _trained(folder: Path) -> Any:
    [last] = StageDir(folder).checkpoints()[-1:]
    files = [file for file in sorted(StageDir(folder).checkpoint(last).rglob("*")) if file.is_file()]
    weights = {file.name: file_digest(file) for file in files if file.name not in ("metrics.jsonl", "COMPLETE")}
    metrics = [_timeless(row) for row in read_jsonl(folder / "metrics.jsonl")]
    rollouts = {file.name: list(read_jsonl(file)) for file in sorted(folder.glob("rollouts/*"))}
    return last, weights, metrics, rollouts


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith(DECIDED_BY_THE_CLOCK)}


def _evaluated(folder: Path) -> Any:
    found = folder / "base" / "arithmetic"
    lines = {name: list(read_jsonl(present(found / f"{name}.jsonl"))) for name in ("samples", "grades", "questions")}
    return {name: sorted(map(json.dumps, rows)) for name, rows in lines.items()}, _scores(found / "summary.json")


def _scores(summary: Path) -> Any:
    return {
        key: value
        for key, value in json.loads(summary.read_text()).items()
        if key not in ("environment", "generations")
    }


def _rephrased(folder: Path) -> Any:
    rows = [{**row, "rephrase": {**row["rephrase"], "time": ""}} for row in read_jsonl(folder / "questions.jsonl")]
    usage = json.loads((folder / "usage.json").read_text())
    return rows, {name: usage[name] for name in ("rows", "questions", "verdicts", "decided_by", "reasons", "answers")}


def work_of(stage: str, models: Models, root: Path, run: str, server: ScriptedServer | None) -> Work:
    """The work of one run.

    Args:
        stage: name of the command.
        models: what it reads.
        root: folder of all runs.
        run: name of this one.
        server: the endpoint of `rephrase`.
    """
    model = f"model.path={models.tiny}"
    data = ("curio", f"rephrase.data=arithmetic-forum:train:{QUESTIONS}:1", "rephrase.model=m")
    arguments = {
        "rephrase": (*data, "rephrase.concurrency=4", f"rephrase.base_url={server.url if server else ''}"),
        "sft": ("curio", *SFT, model),
        "rl": (str(models.box), *RL),
        "eval": ("curio", *EVAL, model),
    }[stage]
    return Work(stage, (*arguments, f"run.root={root}", f"run.name={run}"), root / run / stage, server)


PROBLEMS = {noisy(problem, 1).question: problem.question for problem in generate("train", QUESTIONS, 1)}


def cleaner(_: int, message: str, delay_s: float = 0.02) -> Reply:
    """An endpoint that rewrites well, and whose verdicts are right."""
    if message.startswith(PROMPT):
        texts = json.loads(message.removeprefix(PROMPT))
        same = PROBLEMS.get(texts["post"]) == texts["text"]
        return Reply(json.dumps({"same": same, "differences": []}), delay_s=delay_s)
    before, after = REPHRASE_PROMPT.split("{question}")
    return Reply(PROBLEMS[message.removesuffix(STRICTER).removeprefix(before).removesuffix(after)], delay_s=delay_s)
