"""What a training stage needs beside its algorithm: messages, metrics, guard rails, evaluation, checkpoints."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from curiosft_cli.run.errors import TERMINATED
from curiosft_cli.run.launch import stop_request
from curiosft_cli.run.log import Console, Metrics
from curiosft_cli.run.rundir import StageDir, resolve_checkpoint
from curiosft_cli.stages.step_evaluation import StepEvaluation, benchmarks_between_steps
from curiosft_cli.train.guards import stop
from curiosft_cli.train.heldout import held_out
from curiosft_cli.train.loop import Loop
from curiosft_cli.train.start import check_supplied, start_accelerator
from curiosft_cli.train.token_map import record_tokens
from curiosft_cli.train.trackers import open_trackers

if TYPE_CHECKING:
    from torch import Tensor

    from curiosft_cli.engine.base import RolloutEngine
    from curiosft_cli.evaluation.tasks import BenchmarkTask
    from curiosft_cli.objectives import BoundObjective, Objective
    from curiosft_cli.run.sections import Config, Training
    from curiosft_cli.train.feed import RowFeed
    from curiosft_cli.train.guards import Guards
    from curiosft_cli.train.suppliers import Suppliers

BEST_BY = {"avg": ("eval/avg", 1), "pass@k": ("eval/pass@k", 1), "heldout_loss": ("eval/loss_nats", -1)}
"""For each value of `best_by`: a metric, and -1 where less of it is better."""


@dataclass
class Bookkeeping:
    """Opens a training stage, and does after each step whatever is not the algorithm.

    Attributes:
        name: of the stage, `sft` or `rl`.
        settings: the stage's section.
        objective: with its parameters.
        path: the model that the stage starts with, or its newest checkpoint.
        total: steps of the whole stage.
        done: steps that are done.
        resources: what is closed when the stage ends.
    """

    config: Config
    name: str
    settings: Training
    stage: StageDir
    console: Console
    objective: BoundObjective
    loop: Loop
    path: str
    benchmarks: list[BenchmarkTask]
    total: int = 0
    done: int = 0
    resources: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def open(
        cls,
        config: Config,
        name: str,
        settings: Training,
        stage: StageDir,
        objective: Objective,
        supplied: frozenset[str],
    ) -> Self:
        """Start accelerate, check what can be checked early, and load the model: the newest checkpoint, or `init`.

        Args:
            supplied: what the stage can give an objective to read.
        """
        accelerator = start_accelerator(config, stage)
        console = Console(stage.log_file, enabled=accelerator.is_main_process)
        bound = objective.bind(**settings.params)
        check_supplied(bound, settings.objective, supplied)
        benchmarks, init = benchmarks_between_steps(config, settings), resolve_checkpoint(settings.init, config)
        loop = Loop.open(config, settings, stage, init, accelerator)
        book = cls(config, name, settings, stage, console, bound, loop, str(loop.source or init), benchmarks)
        book.resources.callback(console.close)
        return book

    def begin(
        self,
        total: int,
        rows: str,
        guards: Guards,
        progress: str,
        suppliers: Suppliers | None = None,
        validation: RowFeed | None = None,
    ) -> None:
        """Resume, open the metrics, and print what is about to run.

        Args:
            total: steps of the whole stage.
            rows: number and kind of what is trained on, for that line.
            guards: what the metrics must not do for long.
            progress: format of the progress line, with keys of the metrics.
            suppliers: their state is resumed and saved too.
            validation: held-out rows, evaluated as often as the benchmarks.
        """
        self.total, self._guards, self._progress = total, guards, progress
        self._suppliers, self._validation = suppliers, validation
        self._mapped = validation.first(self.config.log.token_rows) if validation else []
        self.done, saved = self.loop.resume(self._tensors(0))
        if suppliers and saved:
            suppliers.load(saved)
        guards.load(self.loop.counters.get("guards", {}))
        self.evaluation = StepEvaluation(
            self.config, self.settings, self.benchmarks, self.loop, self.path, self.stage, self.console
        )
        self._metrics = None
        if self.loop.accelerator.is_main_process:
            open_trackers(self.loop.accelerator, self.config, self.stage, self.done)
            self._metrics = Metrics(self.stage.metrics_file, self.done, self.loop.accelerator, self.loop.saved_metrics)
            self.resources.callback(self._metrics.close)
        self._stop = self.resources.enter_context(stop_request())
        self.say(f"{self.settings.objective}, {rows}, steps {self.done} to {total}, {self.loop.describe()}")

    def say(self, message: str) -> None:
        """Print one line."""
        self.console.say(f"{self.name}: {message}")

    def steps(self) -> Iterator[int]:
        """The 0-based steps that are left. The time of each step counts from here."""
        for step in range(self.done, self.total):
            self._started = time.monotonic()
            yield step

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` steps."""
        return step % self.settings.save_steps == 0 or step == self.total

    def after(
        self, step: int, values: dict[str, float], engine: RolloutEngine | None, tokens: int | None = None
    ) -> None:
        """Measure, evaluate where it is due, log, check the guard rails, save where it is due; stop after SIGTERM.

        Args:
            step: steps done, this one included.
            values: what the stage itself has to log.
            engine: samples the benchmarks; asleep.
            tokens: trained on in this step, of all ranks.

        Raises:
            CurioError: exit code 4 when a guard rail stops the run.
            SystemExit: 75 after SIGTERM on any rank; the checkpoint is written.
        """
        self.done = step
        values = self.loop.report() | values  # waits for a GPU to finish the step
        seconds = time.monotonic() - self._started
        values["time/step_s"] = seconds
        if tokens is not None:
            values["tokens/s"] = tokens / seconds
        scores = self._evaluate(step, engine)
        if self._metrics and (scores or step % self.config.log.every == 0 or step == self.total):
            self._metrics.log(step, values | scores)
        line = self._progress.format_map(defaultdict(lambda: float("nan"), values))
        self.console.progress(step, self.total, f"{self.name}: {line}")
        breaches = self._guards.check(step, values)
        for breach in breaches:
            self.say(f"warning: {breach.says}")
        terminated = self.loop.everywhere([int(self._stop.is_set())]) != [0]
        stopping = terminated or any(breach.stops for breach in breaches)
        key, sign = BEST_BY[self.settings.best_by]
        self._save(step, sign * scores[key] if key in scores else None, stopping=stopping)
        stop(breaches)
        if terminated and step < self.total:
            self.say(f"stopped by SIGTERM after step {step}, which is saved")
            raise SystemExit(TERMINATED)

    def _evaluate(self, step: int, engine: RolloutEngine | None) -> dict[str, float]:
        every = self.settings.eval_steps
        if step != self.total and (every is None or step % every):
            return {}
        most = self.settings.max_tokens_per_batch
        seen = held_out(self.loop, self._validation, most) if self._validation else {}
        if self._mapped and self._suppliers:
            file = self.stage.token_map(step)
            record_tokens(self.loop, self._suppliers, self.objective, self._mapped, most, file)
        return seen | self.evaluation.evaluate(engine, step)

    def _save(self, step: int, score: float | None, *, stopping: bool) -> None:
        if self.saves_at(step) or self.loop.is_best(score) or stopping:
            tensors, metrics = self._tensors(step), self.stage.metrics_file
            self.loop.save(step, tensors, score, metrics, guards=self._guards.state())

    def _tensors(self, step: int) -> dict[str, Tensor]:
        return self._suppliers.state(step) if self._suppliers else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.resources.close()
