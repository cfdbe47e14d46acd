"""What runs logged and evaluated about their sft checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from curiosft_cli.evaluation.fingerprint import recorded_identity
from curiosft_cli.evaluation.results import QUESTIONS, SUMMARY
from curiosft_cli.run.config import from_json
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_json, read_jsonl
from curiosft_cli.run.rundir import RunDir, StageDir
from curiosft_cli.run.sections.base import OTHER_FOLDERS

BETWEEN_STEPS = "between steps"
SAMPLING = ("temperature", "top_p", "max_completion_length")
DAMAGED = "Finish or repeat that evaluation, or delete the file."


class Score(NamedTuple):
    """The samples of one question: their number, and their mean scores, fractions."""

    samples: int
    answer: float
    strict: float


@dataclass(frozen=True)
class Candidate:
    """A kept checkpoint of an sft stage.

    Attributes:
        run: folder of its run.
        step: its number.
        metrics: what the training logged at this step.
    """

    run: Path
    step: int
    metrics: Mapping[str, Any]

    @property
    def reference(self) -> str:
        """As a checkpoint reference."""
        return f"{self.run.name}:sft@{self.step}"

    @property
    def measured(self) -> Path:
        """What `curiosft choose --sample` measured of it beside samples."""
        return self.run / "choose" / f"sft@{self.step}" / "held-out.json"

    @property
    def stage(self) -> StageDir:
        """The stage that made it."""
        return RunDir(self.run).stage("sft")


@dataclass
class Evidence:
    """What one evaluation says about some checkpoints.

    Attributes:
        name: folder of the evaluation, or `BETWEEN_STEPS`.
        scores: reference -> (benchmark, id of a question) -> its score.
        sampling: the different values of `SAMPLING`.
    """

    name: str = ""
    scores: dict[str, dict[tuple[str, str], Score]] = field(default_factory=dict)
    sampling: set[tuple[Any, ...]] = field(default_factory=set)

    def add(self, reference: str, benchmark: str, questions: Path, settings: Mapping[str, Any]) -> None:
        """Read the questions of one checkpoint on one benchmark; questions that cannot be graded are left out.

        Raises:
            CurioError: the file is damaged.
        """
        self.sampling.add(tuple(settings.get(key) for key in SAMPLING))
        mine = self.scores.setdefault(reference, {})
        try:
            for row in read_jsonl(questions):
                if row["answer"] is not None:
                    score = Score(int(row["samples"]), float(row["answer"]), float(row["strict"]))
                    mine[benchmark, str(row["id"])] = score
        except (KeyError, TypeError, ValueError) as error:
            raise CurioError(f"{questions} holds a row that is no question: {error!r}", DAMAGED) from None

    def covered(self, samples: int) -> int:
        """How many checkpoints have at least so many samples of each question."""
        return sum(min((score.samples for score in one.values()), default=0) >= samples for one in self.scores.values())

    def shared(self) -> dict[str, dict[tuple[str, str], Score]]:
        """The scores on those questions that every checkpoint here was given."""
        common = set.intersection(*(set(one) for one in self.scores.values())) if self.scores else set()
        return {reference: {key: one[key] for key in one if key in common} for reference, one in self.scores.items()}


def candidates_of(run: Path) -> list[Candidate]:
    """The complete checkpoints of a run's sft stage.

    Raises:
        CurioError: there is none, or its metrics are damaged.
    """
    stage = RunDir(run).stage("sft")
    logged = {row.get("step"): row for row in read_jsonl(stage.metrics_file)}
    steps = stage.checkpoints()
    if not steps:
        raise CurioError(f"{stage.path} has no complete checkpoint", "Train it first, or leave it out.")
    return [Candidate(run, step, logged.get(step, {})) for step in steps]


def held_out_losses(candidates: Sequence[Candidate], key: str) -> list[float | None]:
    """The loss of each checkpoint on held-out rows: measured on the same rows, where all were, or as logged."""
    measured = [_measured(one).get(key) for one in candidates]
    return [one.metrics.get(key) for one in candidates] if None in measured else measured


def _measured(one: Candidate) -> Mapping[str, Any]:
    saved = read_json(one.measured, DAMAGED) if one.measured.exists() else {}
    return saved if saved.get("of") == recorded_identity(one.stage.checkpoint(one.step)) else {}


def best_evidence(candidates: Sequence[Candidate], runs: Sequence[Path], samples: int, first: str) -> Evidence:
    """The evaluation that gives most checkpoints `samples` samples a question; `first` wins a tie.

    All scores come from this one, so that they can be compared.
    """
    found: dict[str, Evidence] = {}
    for name, reference, benchmark, questions, settings in _evaluations(candidates, runs):
        found.setdefault(name, Evidence(name)).add(reference, benchmark, questions, settings)
    order = sorted(found.values(), key=lambda one: (one.name == BETWEEN_STEPS, one.name != first, one.name))
    return max(order, key=lambda one: (one.covered(samples), one.covered(1)), default=Evidence())


def _evaluations(
    candidates: Sequence[Candidate], runs: Sequence[Path]
) -> Iterator[tuple[str, str, str, Path, Mapping[str, Any]]]:
    """(evaluation, reference, benchmark, questions.jsonl, settings) of everything that samples these checkpoints.

    A checkpoint is recognised by its weights: an evaluation may have named it otherwise, or lie in another run.
    """
    known = {recorded_identity(one.stage.checkpoint(one.step)): one.reference for one in candidates}
    for run in runs:
        for entry in sorted(run.iterdir()):
            for file in sorted(entry.glob(f"*/*/{SUMMARY}")) if entry.name not in OTHER_FOLDERS else ():
                summary = read_json(file, DAMAGED)
                model, settings = summary.get("model"), summary.get("settings")
                if not isinstance(model, dict) or not isinstance(settings, dict):
                    raise CurioError(f"{file} is damaged, or of another version", DAMAGED)
                if (identity := model.get("sha256")) and identity in known:
                    yield entry.name, known[identity], file.parent.name, file.with_name(QUESTIONS), settings
    for one in candidates:
        settings = from_json(one.stage.config_file).eval.model_dump()
        for file in sorted(one.stage.questions(one.step, "*").parent.glob(one.stage.questions(0, "*").name)):
            benchmark = file.name.removesuffix(one.stage.questions(0, "").name)
            yield BETWEEN_STEPS, one.reference, benchmark, file, settings
