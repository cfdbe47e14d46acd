"""Avg@k on benchmarks between the steps of a training: the accuracy curves of Figures 1 and 2.

    give the engine the weights; every rank samples and grades its share
    put the shares together, and save them
    add up, and measure the entropy of what was said

Prompts, sampling and grading are those of `[eval]`. The engine sleeps before and after; the training's random state
is not touched.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from curiosft_cli.data.benchmarks import BENCHMARKS
from curiosft_cli.data.records import Grade
from curiosft_cli.evaluation.samples import Sample, sample_row
from curiosft_cli.evaluation.summary import PROMPT_TOO_LONG, Outcome, summarise
from curiosft_cli.evaluation.tasks import BenchmarkTask, questions
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import write_compressed_jsonl
from curiosft_cli.stages.benchmark_sampling import draw, evaluation_sampling
from curiosft_cli.stages.handover import EngineSettings, hand_over, open_engine_beside
from curiosft_cli.train.encode import PromptFormat, Row, decode_completion, encode_prompt, stop_token_ids
from curiosft_cli.train.heldout import look_at
from curiosft_cli.train.load import check_context

if TYPE_CHECKING:
    from curiosft_cli.engine.base import RolloutEngine
    from curiosft_cli.run.log import Console
    from curiosft_cli.run.rundir import StageDir
    from curiosft_cli.run.sections import Config
    from curiosft_cli.train.loop import Loop

SHOWN = ("avg", "standard_error", "strict", "format", "no_answer", "truncated", "tokens_mean", "unique_answers")
"""Those of a summary's numbers that become metrics."""


class CurveSettings(Protocol):
    """What the `sft` and `rl` sections say of it."""

    @property
    def eval_benchmarks(self) -> tuple[str, ...]: ...
    @property
    def eval_samples(self) -> int | None: ...
    @property
    def eval_limit(self) -> int | None: ...
    @property
    def max_tokens_per_batch(self) -> int: ...


@dataclass(frozen=True)
class Answer:
    """One graded sample.

    Attributes:
        question: index of the question.
        number: which sample of it.
        outcome: text and grade.
        token_ids: empty where the prompt was too long to be sent.
    """

    question: int
    number: int
    outcome: Outcome
    token_ids: tuple[int, ...]


def asked_between_steps(config: Config, settings: CurveSettings) -> list[BenchmarkTask]:
    """The benchmarks that a training stage looks at.

    Raises:
        CurioError: one does not exist or cannot be loaded.
    """
    asked: list[BenchmarkTask] = []
    for name in dict.fromkeys(settings.eval_benchmarks):
        problems = questions(config, name, settings.eval_limit)
        samples = settings.eval_samples or BENCHMARKS[name].samples
        asked.append(BenchmarkTask(name, problems, samples, (samples,)))
    return asked


def is_due(step: int, every: int | None, total: int) -> bool:
    """Whether there is a look after optimizer step `step` (1-based) of `total`."""
    return step == total or (every is not None and step % every == 0)


class SampledCurve:
    """Looks at the benchmarks of `asked` between steps.

    Args:
        config: the whole configuration.
        settings: the stage's own.
        asked: the questions; none makes every method do nothing.
        loop: the trainer.
        path: the model that the stage starts with; its generation settings name end tokens.
        stage: where the samples are kept.
        console: where the scores are said.

    Raises:
        CurioError: no prompt is short enough to be sent.
    """

    def __init__(
        self,
        config: Config,
        settings: CurveSettings,
        asked: Sequence[BenchmarkTask],
        loop: Loop,
        path: str,
        stage: StageDir,
        console: Console,
    ) -> None:
        style = PromptFormat.from_config(config.model)
        self._config, self._settings, self._loop, self._path = config, settings, loop, path
        self._stage, self._console = stage, console
        self._prompts = {job.name: [encode_prompt(loop.tokenizer, p, style) for p in job.problems] for job in asked}
        self._asked = asked
        self._sampling = evaluation_sampling(config.eval, stop_token_ids(loop.tokenizer, path))
        if asked and not self._sendable():
            raise CurioError(
                f"eval.max_prompt_length = {config.eval.max_prompt_length} leaves no prompt of "
                f"{', '.join(self._prompts)} to sample",
                "Raise it, or set it to none.",
            )

    def __bool__(self) -> bool:
        return bool(self._asked)

    @property
    def context(self) -> int:
        """Tokens of the longest prompt that is sent and its completion; 0 without benchmarks."""
        return max(map(len, self._sendable())) + self._sampling.max_tokens if self else 0

    @contextmanager
    def engine(self, settings: EngineSettings) -> Generator[RolloutEngine | None]:
        """An engine for these looks alone, asleep; none without benchmarks."""
        if not self:
            yield None
            return
        context = check_context(self._path, self._config.model, self.context)
        engine = open_engine_beside(self._config, settings, self._path, context, self._loop.dtype_name)
        try:
            engine.sleep()
            yield engine
        finally:
            engine.close()

    def look(self, engine: RolloutEngine | None, step: int) -> dict[str, float]:
        """Numbers of every benchmark with the weights after `step`, and `eval/avg`, their mean; every rank calls it.

        Raises:
            CurioError: exit code 4 when the engine does not answer as the trainer does.
        """
        if not self or engine is None:
            return {}
        started = time.monotonic()
        engine.wake()
        probe = self._sendable()[0]
        hand_over(engine, self._loop, Row(tuple(probe[:1]), tuple(probe[1:])), step)
        with GraderPool(self._config.eval.grader_workers) as pool:
            answers = {job.name: self._together(self._share(engine, pool, job)) for job in self._asked}
        engine.sleep()
        values: dict[str, float] = {}
        for job in self._asked:
            numbers = self._numbers(job, answers[job.name])
            values |= {f"eval/{job.name}/{name}": number for name, number in numbers.items()}
            if self._loop.accelerator.is_main_process:
                _save(self._stage, step, job, answers[job.name])
            if "avg" in numbers:
                spread = f" +- {numbers['standard_error']:.1f}" if "standard_error" in numbers else ""
                self._console.say(f"step {step}: {job.name} Avg@{job.samples} {numbers['avg']:.1f}{spread}")
        scores = [values[key] for job in self._asked if (key := f"eval/{job.name}/avg") in values]
        return values | ({"eval/avg": fmean(scores)} if scores else {}) | {"time/eval_s": time.monotonic() - started}

    def _fits(self, prompt: Sequence[int]) -> bool:
        longest = self._config.eval.max_prompt_length
        return longest is None or len(prompt) <= longest

    def _sendable(self) -> list[list[int]]:
        return [prompt for prompts in self._prompts.values() for prompt in prompts if self._fits(prompt)]

    def _share(self, engine: RolloutEngine, pool: GraderPool, job: BenchmarkTask) -> list[Answer]:
        """This rank's samples, graded while others are still drawn."""
        accelerator, prompts = self._loop.accelerator, self._prompts[job.name]
        every = [(question, number) for question in range(len(prompts)) for number in range(job.samples)]
        mine = every[accelerator.process_index :: accelerator.num_processes]
        sent = [key for key in mine if self._fits(prompts[key[0]])]
        waiting: dict[tuple[int, int], tuple[str, tuple[int, ...], str]] = {}
        answers: list[Answer] = []
        prefilled = bool(self._config.model.prefill)

        def submit(key: tuple[int, int], token_ids: tuple[int, ...], reason: str) -> None:
            text = decode_completion(self._loop.tokenizer, token_ids)
            waiting[key] = text, token_ids, reason
            pool.submit(
                key,
                text,
                job.problems[key[0]],
                prefilled=prefilled,
                truncated=reason == "length",
                grader=self._config.eval.grader,
            )

        def take(graded: Iterable[tuple[Any, Grade]]) -> None:
            for key, grade in graded:
                text, token_ids, reason = waiting.pop(key)
                answers.append(Answer(*key, Outcome(grade, text, len(token_ids), reason, prefilled), token_ids))

        for key in mine:
            if not self._fits(prompts[key[0]]):
                submit(key, (), PROMPT_TOO_LONG)
        found = draw(engine, job, prompts, sent, self._sampling, self._config.run.seed)
        for count, (index, completion) in enumerate(found, start=1):
            submit(sent[index], completion.token_ids, completion.finish_reason)
            take(pool.poll())
            self._console.progress(count, len(sent), f"{job.name}: completions")
        take(pool.drain())
        return answers

    def _together(self, answers: list[Answer]) -> list[Answer]:
        """All ranks' answers, in the order of questions and samples."""
        if self._loop.ranks > 1:
            from accelerate.utils import gather_object

            answers = gather_object(answers)
        return sorted(answers, key=lambda answer: (answer.question, answer.number))

    def _numbers(self, job: BenchmarkTask, answers: Sequence[Answer]) -> dict[str, float]:
        """What becomes metrics; a number that nothing was there to compute is left out."""
        per_question = [answers[start : start + job.samples] for start in range(0, len(answers), job.samples)]
        summary = summarise(job.problems, [[answer.outcome for answer in some] for some in per_question], job.pass_k)
        shown = {name: summary[name] for name in SHOWN} | {f"pass@{k}": share for k, share in summary["pass"].items()}
        troubles = {f"grader_{status}": count for status, count in summary["grader_status"].items() if status != "ok"}
        said = [
            Row(tuple(self._prompts[job.name][answer.question]), answer.token_ids)
            for answer in answers
            if answer.token_ids and answer.number < self._config.eval.entropy_samples
        ]
        if said:
            packs = self._loop.packs(said, self._settings.max_tokens_per_batch)
            shown["entropy_nats"] = look_at(self._loop, packs)["entropy_nats"]
        return {name: number for name, number in (shown | troubles).items() if number is not None}


def _save(stage: StageDir, step: int, job: BenchmarkTask, answers: Sequence[Answer]) -> None:
    """Keep what was said, in the layout of an evaluation's samples."""
    write_compressed_jsonl(
        stage.samples(step, job.name),
        (sample_row(job.problems[answer.question].id, answer.number, _sample(answer)) for answer in answers),
    )


def _sample(answer: Answer) -> Sample:
    said = answer.outcome
    return Sample(said.text, said.tokens, said.finish_reason, answer.token_ids, said.prefilled)
