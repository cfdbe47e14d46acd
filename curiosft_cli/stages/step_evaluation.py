"""Avg@k on benchmarks between the steps of a training: the accuracy curves of Figures 1 and 2.

    give the engine the weights; every rank samples and grades its share
    gather the shares, and save them
    compute the scores, and the entropy of the completions

Prompts, sampling and grading are those of `[eval]`. The engine sleeps before and after. The random state of the
training is not touched.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from curiosft_cli.data.benchmarks import find_benchmark
from curiosft_cli.engine.base import Completion
from curiosft_cli.evaluation.samples import Sample, sample_row
from curiosft_cli.evaluation.summary import PROMPT_TOO_LONG, Outcome, Summary
from curiosft_cli.evaluation.tasks import BenchmarkTask, check_names, questions
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import json_line, write_compressed_jsonl, write_text
from curiosft_cli.stages.benchmark_sampling import evaluation_sampling, seeds_of
from curiosft_cli.stages.graded_stream import GradedCompletion, GradedRequest, graded_stream
from curiosft_cli.stages.handover import HandOver, asleep, open_engine_beside
from curiosft_cli.train.encode import PromptFormat, Row, encode_prompt, stop_token_ids
from curiosft_cli.train.heldout import evaluate_packs
from curiosft_cli.train.load import check_context
from curiosft_cli.train.start import gather_objects
from curiosft_cli.train.trackers import SAMPLE_COLUMNS, log_table, table_row

if TYPE_CHECKING:
    from curiosft_cli.engine.base import RolloutEngine
    from curiosft_cli.run.log import Console
    from curiosft_cli.run.rundir import StageDir
    from curiosft_cli.run.sections import Config, Training
    from curiosft_cli.train.loop import Loop

REPORTED = ("avg", "standard_error", "strict", "format", "no_answer", "truncated", "tokens_mean", "unique_answers")
"""The numbers of a summary that become metrics."""
MEANS = {"avg": "avg", "pass@k": "pass@{samples}"}
"""Means over the benchmarks, and which number of a benchmark each is of."""


@dataclass(frozen=True)
class StepSample:
    """One graded sample.

    Attributes:
        question: index of the question.
        number: which sample of the question.
        outcome: text and grade.
        token_ids: empty where the prompt was too long to be sent.
    """

    question: int
    number: int
    outcome: Outcome
    token_ids: tuple[int, ...]


def benchmarks_between_steps(config: Config, settings: Training) -> list[BenchmarkTask]:
    """The benchmarks that a training stage evaluates.

    Raises:
        CurioError: one does not exist or cannot be loaded.
    """
    check_names(config)
    tasks: list[BenchmarkTask] = []
    for name in dict.fromkeys(settings.eval_benchmarks):
        problems = questions(config, name, settings.eval_limit)
        samples = settings.eval_samples or find_benchmark(name, config.eval).samples
        tasks.append(BenchmarkTask(name, problems, samples, (samples,)))
    return tasks


class StepEvaluation:
    """Evaluates the policy on benchmarks between steps.

    Args:
        config: the whole configuration.
        settings: the stage's own.
        benchmarks: what is evaluated; where this is empty every method does nothing.
        loop: the trainer.
        path: the model that the stage starts with; its generation settings name end tokens.
        stage: where the samples are kept.
        console: where the scores are printed.

    Raises:
        CurioError: no prompt is short enough to be sent.
    """

    def __init__(
        self,
        config: Config,
        settings: Training,
        benchmarks: Sequence[BenchmarkTask],
        loop: Loop,
        path: str,
        stage: StageDir,
        console: Console,
    ) -> None:
        style = PromptFormat.from_config(config.model)
        self._config, self._settings, self._loop, self._path = config, settings, loop, path
        self._stage, self._console, self._benchmarks = stage, console, benchmarks
        self._prompts = {
            job.name: [encode_prompt(loop.tokenizer, problem, style) for problem in job.problems] for job in benchmarks
        }
        self._sampling = evaluation_sampling(config.eval, stop_token_ids(loop.tokenizer, path))
        if benchmarks and not self._sendable():
            raise CurioError(
                f"eval.max_prompt_length = {config.eval.max_prompt_length} leaves no prompt of "
                f"{', '.join(self._prompts)} to sample",
                "Raise it, or set it to none.",
            )

    @property
    def context(self) -> int:
        """Tokens of the longest prompt that is sent and its completion; 0 without benchmarks."""
        return max(map(len, self._sendable())) + self._sampling.max_tokens if self._benchmarks else 0

    def engine(self) -> AbstractContextManager[RolloutEngine | None]:
        """An engine for these evaluations alone, asleep; None without benchmarks."""
        if not self._benchmarks:
            return nullcontext()
        context = check_context(self._path, self._config.model, self.context)
        return asleep(open_engine_beside(self._config, self._settings, self._path, context, self._loop.dtype_name))

    def evaluate(self, engine: RolloutEngine | None, step: int) -> dict[str, float]:
        """Numbers of every benchmark with the weights after `step`, and their `MEANS`; every rank calls it.

        Raises:
            CurioError: exit code 4 when the engine does not answer as the trainer does.
        """
        if engine is None or not self._benchmarks:
            return {}
        started = time.monotonic()
        probe = self._sendable()[0]
        HandOver(engine, self._loop)(step, Row(tuple(probe[:1]), tuple(probe[1:])))
        with GraderPool(self._config.eval.grader_workers) as pool:
            samples = {job.name: self._gathered(self._own_share(engine, pool, job)) for job in self._benchmarks}
        engine.sleep()
        values: dict[str, float] = {}
        for job in self._benchmarks:
            numbers, questions = self._numbers(job, samples[job.name])
            values |= {f"eval/{job.name}/{name}": number for name, number in numbers.items()}
            if self._loop.accelerator.is_main_process:
                _save(self._stage, step, job, samples[job.name], questions)
                shown = samples[job.name][: self._config.log.table_rows]
                table = [table_row(job.problems[s.question], s.outcome.text, s.outcome.grade) for s in shown]
                log_table(self._loop.accelerator, step, f"samples/{job.name}", SAMPLE_COLUMNS, table)
            if "avg" in numbers:
                error = f" +- {numbers['standard_error']:.1f}" if "standard_error" in numbers else ""
                self._console.say(f"step {step}: {job.name} Avg@{job.samples} {numbers['avg']:.1f}{error}")
        for mean, name in MEANS.items():
            keys = [f"eval/{job.name}/{name.format(samples=job.samples)}" for job in self._benchmarks]
            if scores := [values[key] for key in keys if key in values]:
                values[f"eval/{mean}"] = fmean(scores)
        return values | {"time/eval_s": time.monotonic() - started}

    def _fits(self, prompt: Sequence[int]) -> bool:
        longest = self._config.eval.max_prompt_length
        return longest is None or len(prompt) <= longest

    def _sendable(self) -> list[list[int]]:
        return [prompt for prompts in self._prompts.values() for prompt in prompts if self._fits(prompt)]

    def _own_share(self, engine: RolloutEngine, pool: GraderPool, job: BenchmarkTask) -> list[StepSample]:
        """This rank's samples. A prompt that is too long is graded as an empty completion."""
        accelerator, prompts = self._loop.accelerator, self._prompts[job.name]
        every = [(question, number) for question in range(len(prompts)) for number in range(job.samples)]
        mine = every[accelerator.process_index :: accelerator.num_processes]
        nothing = Completion((), (), "stop")
        requests = [
            GradedRequest(
                key,
                job.problems[key[0]],
                prompts[key[0]],
                seed,
                complete=None if self._fits(prompts[key[0]]) else nothing,
            )
            for key, seed in zip(mine, seeds_of(job, mine, self._config.run.seed), strict=True)
        ]
        prefilled = bool(self._config.model.prefill)
        stream = graded_stream(
            engine,
            pool,
            self._loop.tokenizer,
            requests,
            self._sampling,
            on_sampled=lambda done, total: self._console.progress(done, total, f"{job.name}: completions"),
            prefilled=prefilled,
            grader=self._config.eval.grader,
        )
        return [_step_sample(done, prefilled) for done in stream]

    def _gathered(self, samples: list[StepSample]) -> list[StepSample]:
        """The samples of all ranks, in the order of questions and numbers."""
        samples = gather_objects(self._loop.accelerator, samples)
        return sorted(samples, key=lambda sample: (sample.question, sample.number))

    def _numbers(
        self, job: BenchmarkTask, samples: Sequence[StepSample]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """What becomes metrics, without numbers that cannot be computed; and the scores of each question."""
        summary, starts = Summary(), range(0, len(samples), job.samples)
        per_question = [[sample.outcome for sample in samples[start : start + job.samples]] for start in starts]
        questions = [summary.add(problem, some) for problem, some in zip(job.problems, per_question, strict=True)]
        found = summary.numbers(job.pass_k)
        numbers = {name: found[name] for name in REPORTED}
        numbers |= {f"pass@{k}": share for k, share in found["pass"].items()}
        numbers |= {f"grader_{status}": n for status, n in found["grader_status"].items() if status != "ok"}
        rows = [
            Row(tuple(self._prompts[job.name][sample.question]), sample.token_ids)
            for sample in samples
            if sample.token_ids and sample.number < self._config.eval.entropy_samples
        ]
        if rows:
            packs = self._loop.packs(rows, self._settings.max_tokens_per_batch)
            numbers["entropy_nats"] = evaluate_packs(self._loop, packs)["entropy_nats"]
        return {name: number for name, number in numbers.items() if number is not None}, questions


def _step_sample(done: GradedCompletion, prefilled: bool) -> StepSample:
    ids = done.completion.token_ids
    reason = done.completion.finish_reason if done.request.complete is None else PROMPT_TOO_LONG
    return StepSample(*done.request.key, Outcome(done.grade, done.text, len(ids), reason, prefilled), ids)


def _save(
    stage: StageDir,
    step: int,
    job: BenchmarkTask,
    samples: Sequence[StepSample],
    questions: Sequence[Mapping[str, Any]],
) -> None:
    """Save the scores of the questions, and the samples, in the layout of an evaluation."""
    write_text(stage.questions(step, job.name), "".join(json_line(row) + "\n" for row in questions))
    write_compressed_jsonl(
        stage.samples(step, job.name),
        (
            sample_row(job.problems[sample.question].id, sample.number, _saved(sample.outcome, sample.token_ids))
            for sample in samples
        ),
    )


def _saved(outcome: Outcome, token_ids: tuple[int, ...]) -> Sample:
    return Sample(outcome.text, outcome.tokens, outcome.finish_reason, token_ids, outcome.prefilled)
