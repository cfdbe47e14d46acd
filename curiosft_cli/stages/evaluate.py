"""Evaluation: sample every benchmark from every checkpoint, grade the saved samples, summarise.

    for each checkpoint and benchmark:
        sample what is missing   -> samples.jsonl, one line a completion, as they finish
        measure entropy          -> entropy.json: teacher-forced, temperature 1, full vocabulary, nats
        grade and add up         -> grades.jsonl, questions.jsonl and, written last, summary.json

Samples are drawn once and kept; grading reads them back, one question at a time. A killed evaluation loses only what
was in flight, and asking for more samples draws only those that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.benchmark import draw, evaluation_sampling
from curiosft_cli.engine.device import hardware
from curiosft_cli.engine.open import open_engine
from curiosft_cli.engine.openai import Endpoint, OpenAIEngine
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import JsonLines, write_json
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import StageDir, resolve_checkpoint
from curiosft_cli.run.sections import Config
from curiosft_cli.tasks.evaluation import (
    Asked,
    ask,
    claim,
    is_summarised,
    summarise_benchmark,
    write_run_summary,
)
from curiosft_cli.tasks.fingerprint import model_identity, questions_digest
from curiosft_cli.tasks.generations import Generations, sample_row
from curiosft_cli.tasks.metrics import self_check
from curiosft_cli.tasks.summary import PROMPT_TOO_LONG

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.engine.base import Sampler, Sampling


@dataclass(frozen=True)
class Job:
    """One benchmark for one checkpoint.

    Attributes:
        asked: its questions and how often each is sampled.
        prompts: token ids, one per question.
        folder: of its results.
    """

    asked: Asked
    prompts: list[list[int]]
    folder: Path

    @property
    def file(self) -> Path:
        """The saved samples."""
        return self.folder / "samples.jsonl"

    def generations(self) -> Generations:
        """The saved samples, indexed."""
        return Generations(self.file, self.asked.problems)


def run(config: Config, stage: StageDir) -> None:
    """Evaluate every checkpoint reference of `eval.checkpoints` on every benchmark."""
    self_check()
    _check_endpoint(config)
    console = Console(stage.log_file)
    benchmarks = ask(config)
    paths = {reference: resolve_checkpoint(reference, config) for reference in config.eval.checkpoints}
    for reference, path in paths.items():
        evaluate_checkpoint(config, stage, reference, path, benchmarks, console)
    write_run_summary(config, stage)
    console.close()


def evaluate_checkpoint(
    config: Config, stage: StageDir, reference: str, path: str, benchmarks: list[Asked], console: Console
) -> None:
    """Sample, grade and summarise the benchmarks that this checkpoint still lacks."""
    from curiosft_cli.train.encode import PromptFormat, encode_prompt
    from curiosft_cli.train.load import load_tokenizer

    folders = {asked.name: stage.benchmark(reference, asked.name) for asked in benchmarks}
    todo = [asked for asked in benchmarks if not is_summarised(folders[asked.name], asked, config)]
    if not todo:
        console.say(f"{reference}: complete already")
        return
    tokenizer = load_tokenizer(path, config.model)
    style = PromptFormat.from_config(config.model)
    jobs = [
        Job(asked, [encode_prompt(tokenizer, problem, style) for problem in asked.problems], folders[asked.name])
        for asked in todo
    ]
    model = _identity(config, path)
    for job in jobs:
        claim(job.folder, model)
    sample(config, path, tokenizer, jobs, console, reference)
    entropies = measure_entropy(config, path, jobs)
    for job in jobs:
        summarise_benchmark(
            config,
            job.folder,
            job.asked,
            job.generations(),
            reference=reference,
            model=model,
            entropy=entropies.get(job.asked.name),
            hardware=hardware(),
            console=console,
        )
        console.say(f"{reference} on {job.asked.name}: done")


def sample(
    config: Config,
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    jobs: list[Job],
    console: Console,
    reference: str,
) -> None:
    """Draw the completions that are not saved yet and append each as it finishes."""
    from curiosft_cli.train.encode import stop_token_ids

    missing = {job.asked.name: job.generations().missing(job.asked.samples) for job in jobs}
    for job in jobs:
        missing[job.asked.name] = _without_long_prompts(config, job, missing[job.asked.name], console)
    if not any(missing.values()):
        return
    longest = max(len(job.prompts[question]) for job in jobs for question, _ in missing[job.asked.name])
    sampling = evaluation_sampling(config.eval, stop_token_ids(tokenizer, path))
    engine = _open(config, path, tokenizer, longest + config.eval.max_completion_length)
    try:
        for job in jobs:
            _sample_job(config, engine, tokenizer, job, missing[job.asked.name], sampling, console, reference)
    finally:
        engine.close()


def _sample_job(
    config: Config,
    engine: Sampler,
    tokenizer: PreTrainedTokenizerBase,
    job: Job,
    missing: list[tuple[int, int]],
    sampling: Sampling,
    console: Console,
    reference: str,
) -> None:
    from curiosft_cli.train.encode import decode_completion

    problems = job.asked.problems
    drawn = draw(engine, job.asked, job.prompts, missing, sampling, config.run.seed)
    with JsonLines(job.file) as file:
        for count, (question, j, completion) in enumerate(drawn, start=1):
            ids = completion.token_ids
            text = decode_completion(tokenizer, ids)
            file.append(sample_row(problems[question].id, j, text, len(ids), completion.finish_reason, ids))
            console.progress(count, len(missing), f"{reference} on {job.asked.name}: completions")


def _without_long_prompts(
    config: Config, job: Job, missing: list[tuple[int, int]], console: Console
) -> list[tuple[int, int]]:
    """What can be sampled. A prompt above `eval.max_prompt_length` is saved as an empty sample and scores 0."""
    longest = config.eval.max_prompt_length
    if longest is None:
        return missing
    fitting = [(question, j) for question, j in missing if len(job.prompts[question]) <= longest]
    too_long = [(question, j) for question, j in missing if len(job.prompts[question]) > longest]
    if too_long:
        questions = len({question for question, _ in too_long})
        console.say(f"{job.asked.name}: {questions} prompts have more than {longest} tokens; they score 0")
        with JsonLines(job.file) as file:
            for question, j in too_long:
                file.append(sample_row(job.asked.problems[question].id, j, "", 0, PROMPT_TOO_LONG))
    return fitting


def measure_entropy(config: Config, path: str, jobs: list[Job]) -> dict[str, dict[str, float]]:
    """Teacher-forced entropy in nats of the saved completions; the engine is closed by now.

    Kept in entropy.json, since it depends neither on the grader nor on how many more samples are drawn.
    """
    count = config.eval.entropy_samples
    if not count or config.eval.engine == "openai":
        return {}
    from curiosft_cli.train.entropy import completion_entropies

    known: dict[str, dict[str, float]] = {}
    sequences: dict[str, Iterator[tuple[list[int], list[int]]]] = {}
    stamps = {job.asked.name: _entropy_stamp(job, count) for job in jobs}
    for job in jobs:
        file = job.folder / "entropy.json"
        saved = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if saved.get("of") == stamps[job.asked.name]:
            known[job.asked.name] = saved["entropy"]
        else:
            sequences[job.asked.name] = _sequences(job, count)
    if sequences:
        measured = completion_entropies(path, config.model, config.eval.precision, sequences)
        for job in jobs:
            if found := measured.get(job.asked.name):
                write_json(job.folder / "entropy.json", {"of": stamps[job.asked.name], "entropy": found})
        known |= measured
    return known


def _entropy_stamp(job: Job, count: int) -> dict[str, Any]:
    return {"samples": min(count, job.asked.samples), "questions": questions_digest(job.asked.problems)}


def _sequences(job: Job, samples: int) -> Iterator[tuple[list[int], list[int]]]:
    """Prompt and completion ids of the first `samples` non-empty completions of each question, one by one."""
    for question, sample in job.generations().read(min(samples, job.asked.samples)):
        if sample.token_ids:
            yield job.prompts[question], list(sample.token_ids)


def _open(config: Config, path: str, tokenizer: PreTrainedTokenizerBase, needed: int) -> Sampler:
    """The engine that samples, with room for `needed` tokens of prompt and completion."""
    from curiosft_cli.train.load import check_context, context_overrides

    settings = config.eval
    if settings.engine == "openai":
        endpoint = Endpoint(
            settings.base_url or "",
            settings.endpoint_model or path,
            settings.api_key_env,
            settings.concurrency,
            settings.request_timeout_s,
        )
        return OpenAIEngine(endpoint, lambda text: tokenizer.encode(text, add_special_tokens=False))
    return open_engine(
        settings.engine,
        path,
        max_model_len=check_context(path, config.model, needed),
        dtype=settings.precision,
        seed=config.run.seed,
        cpu_kv_cache_gib=settings.kv_cache_gib,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        hf_overrides=context_overrides(path, config.model),
        trust_remote_code=config.model.trust_remote_code,
    )


def _identity(config: Config, path: str) -> dict[str, Any]:
    """What the samples are samples of: weights by digest or commit, or an endpoint and the name it gives its model."""
    if config.eval.engine == "openai":
        return {"endpoint": config.eval.base_url, "name": config.eval.endpoint_model or path}
    return model_identity(path, config.model.revision)


def _check_endpoint(config: Config) -> None:
    if config.eval.engine != "openai":
        return
    if not config.eval.base_url:
        raise CurioError("eval.engine is openai, eval.base_url is none", "Set eval.base_url=http://HOST:PORT/v1.")
    if len(config.eval.checkpoints) > 1:
        raise CurioError(
            f"eval.engine is openai and eval.checkpoints names {len(config.eval.checkpoints)} models",
            "An endpoint serves one: name one checkpoint, and use another eval.name for the next.",
        )


if __name__ == "__main__":
    run_stage(run)
