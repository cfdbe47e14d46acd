"""Evaluation: sample every benchmark from every checkpoint, grade the saved samples, summarise.

    for each checkpoint and benchmark:
        sample what is missing   -> samples.jsonl, one line a completion, as they finish
        grade                    -> strict reward and answer-only score
        measure entropy          -> teacher-forced, temperature 1, full vocabulary, nats
        summarise                -> summary.json, written last

Samples are drawn once and kept; grading reads them back. A killed evaluation loses only what was in flight.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.base import Sampling
from curiosft_cli.engine.open import open_engine
from curiosft_cli.run.files import JsonLines, read_jsonl, write_json
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import StageDir, resolve_checkpoint
from curiosft_cli.run.sections import Config
from curiosft_cli.tasks.benchmarks import BENCHMARKS, load_benchmark
from curiosft_cli.tasks.grader_pool import GraderPool
from curiosft_cli.tasks.grading import GradeItem
from curiosft_cli.tasks.records import Problem
from curiosft_cli.tasks.seeds import sample_seed
from curiosft_cli.tasks.summary import Outcome, summarise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.engine.base import RolloutEngine

PROMPT_TOO_LONG = "prompt_too_long"


@dataclass(frozen=True)
class Job:
    """One benchmark for one checkpoint."""

    benchmark: str
    problems: list[Problem]
    prompts: list[list[int]]
    samples: int
    folder: Path


def run(config: Config, stage: StageDir) -> None:
    """Evaluate every checkpoint reference of `eval.checkpoints` on every benchmark."""
    console = Console(stage.log_file)
    problems = {name: _problems(config, name) for name in config.eval.benchmarks}
    paths = {reference: resolve_checkpoint(reference, config) for reference in config.eval.checkpoints}
    for reference, path in paths.items():
        evaluate_checkpoint(config, stage, reference, path, problems, console)
    summaries = [_summary(stage, reference, name) for reference in paths for name in problems]
    write_json(stage.path / "summary.json", {"results": summaries})
    console.close()


def evaluate_checkpoint(
    config: Config,
    stage: StageDir,
    reference: str,
    path: str,
    problems: dict[str, list[Problem]],
    console: Console,
) -> None:
    """Sample, grade and summarise the benchmarks that this checkpoint still lacks."""
    from curiosft_cli.train.encode import PromptFormat, encode_prompt
    from curiosft_cli.train.load import load_tokenizer

    todo = [name for name in problems if not (stage.benchmark(reference, name) / "summary.json").exists()]
    if not todo:
        console.say(f"{reference}: complete already")
        return
    tokenizer = load_tokenizer(path, config.model)
    style = PromptFormat.from_config(config.model)
    jobs = [
        Job(
            name,
            problems[name],
            [encode_prompt(tokenizer, problem, style) for problem in problems[name]],
            config.eval.samples or BENCHMARKS[name].samples,
            stage.benchmark(reference, name),
        )
        for name in todo
    ]
    sample(config, path, tokenizer, jobs, console, reference)
    entropies = measure_entropy(config, path, jobs)
    for job in jobs:
        grade_and_summarise(config, reference, path, tokenizer, job, entropies.get(job.benchmark))
        console.say(f"{reference} on {job.benchmark}: done")


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
    from curiosft_cli.train.load import check_context, context_overrides

    missing = {job.benchmark: _missing(job) for job in jobs}
    if not any(missing.values()):
        return
    longest = max(len(prompt) for job in jobs for prompt in job.prompts)
    context = check_context(path, config.model, longest + config.eval.max_completion_length)
    sampling = Sampling(
        config.eval.temperature,
        config.eval.top_p,
        config.eval.max_completion_length,
        stop_token_ids(tokenizer, path),
    )
    engine = open_engine(
        config.eval.engine,
        path,
        max_model_len=context,
        dtype=config.eval.precision,
        seed=config.run.seed,
        cpu_kv_cache_gib=config.eval.kv_cache_gib,
        gpu_memory_utilization=config.eval.gpu_memory_utilization,
        hf_overrides=context_overrides(path, config.model),
        trust_remote_code=config.model.trust_remote_code,
    )
    try:
        for job in jobs:
            _sample_job(config, engine, job, missing[job.benchmark], sampling, context, console, reference)
    finally:
        engine.close()


def _sample_job(
    config: Config,
    engine: RolloutEngine,
    job: Job,
    missing: list[tuple[int, int]],
    sampling: Sampling,
    context: int,
    console: Console,
    reference: str,
) -> None:
    with JsonLines(job.folder / "samples.jsonl") as file:
        fitting = [(question, j) for question, j in missing if len(job.prompts[question]) < context]
        for question, j in sorted(set(missing) - set(fitting)):
            file.append(_row(job.problems[question].id, j, (), PROMPT_TOO_LONG))
        prompts = [job.prompts[question] for question, _ in fitting]
        seeds = [sample_seed(config.run.seed, job.benchmark, job.problems[question].id, j) for question, j in fitting]
        for count, (index, completion) in enumerate(engine.stream(prompts, sampling, seeds), start=1):
            question, j = fitting[index]
            file.append(_row(job.problems[question].id, j, completion.token_ids, completion.finish_reason))
            console.progress(count, len(fitting), f"{reference} on {job.benchmark}: completions")


def measure_entropy(config: Config, path: str, jobs: list[Job]) -> dict[str, dict[str, float]]:
    """Teacher-forced entropy in nats of the saved completions; the engine is closed by now."""
    if not config.eval.entropy_samples:
        return {}
    from curiosft_cli.train.entropy import completion_entropies

    sequences = {job.benchmark: _sequences(job, config.eval.entropy_samples) for job in jobs}
    return completion_entropies(path, config.model, config.eval.precision, sequences)


def grade_and_summarise(
    config: Config,
    reference: str,
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    job: Job,
    entropy: dict[str, float] | None,
) -> None:
    """Grade the saved samples in the process pool; write grades.jsonl and, last, summary.json."""
    from curiosft_cli.train.encode import decode_completion

    rows = _saved(job)
    texts = [decode_completion(tokenizer, row["token_ids"]) for row in rows]
    problems = {problem.id: problem for problem in job.problems}
    with GraderPool(config.eval.grader_workers) as pool:
        grades = pool.grade_all(
            GradeItem(
                text,
                problems[row["id"]],
                prefilled=bool(config.model.prefill),
                truncated=row["finish_reason"] == "length",
                grader=config.eval.grader,
            )
            for text, row in zip(texts, rows, strict=True)
        )
    outcomes = [
        Outcome(grade, text, len(row["token_ids"]), row["finish_reason"])
        for grade, text, row in zip(grades, texts, rows, strict=True)
    ]
    per_question = [outcomes[start : start + job.samples] for start in range(0, len(outcomes), job.samples)]
    _save_grades(job, rows, outcomes)
    summary = {
        "checkpoint": reference,
        "model": path,
        "benchmark": job.benchmark,
        **summarise(per_question, [k for k in config.eval.pass_k if k <= job.samples]),
        "entropy_nats": entropy["token_mean"] if entropy else None,
        "entropy_seq_mean_nats": entropy["seq_mean"] if entropy else None,
        "settings": config.eval.model_dump(mode="json") | {"seed": config.run.seed},
    }
    write_json(job.folder / "summary.json", summary)


def results_table(stage: StageDir, config: Config) -> str:
    """The summaries as a plain table: one row a checkpoint and benchmark, percent unless the column says nats."""
    header = ["checkpoint", "benchmark", "Avg@k", "± SE", *(f"Pass@{k}" for k in config.eval.pass_k)]
    header += ["strict", "format", "truncated", "entropy (nats)", "tokens"]
    rows = [header]
    for reference in config.eval.checkpoints:
        for name in config.eval.benchmarks:
            result = _summary(stage, reference, name)
            percent = [result["avg"], result["standard_error"]]
            percent += [result["pass"].get(str(k)) for k in config.eval.pass_k]
            percent += [result["strict"], result["format"], result["truncated"]]
            rows.append(
                [
                    reference,
                    f"{name} ({result['questions']} x {result['samples']})",
                    *("-" if value is None else f"{value:.1f}" for value in percent),
                    "-" if result["entropy_nats"] is None else f"{result['entropy_nats']:.3f}",
                    f"{result['tokens_mean']:.0f}",
                ]
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
            + [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        )
        for row in rows
    ]
    return "\n".join(lines)


def _problems(config: Config, name: str) -> list[Problem]:
    return load_benchmark(name, data=config.eval.data.get(name), limit=config.eval.limit)


def _summary(stage: StageDir, reference: str, name: str) -> dict[str, Any]:
    return json.loads((stage.benchmark(reference, name) / "summary.json").read_text(encoding="utf-8"))


def _row(question: str, sample: int, token_ids: Sequence[int], finish_reason: str) -> dict[str, Any]:
    return {"id": question, "sample": sample, "token_ids": list(token_ids), "finish_reason": finish_reason}


def _save_grades(job: Job, rows: Sequence[dict[str, Any]], outcomes: Sequence[Outcome]) -> None:
    path = job.folder / "grades.jsonl"
    path.unlink(missing_ok=True)
    with JsonLines(path) as file:
        for row, outcome in zip(rows, outcomes, strict=True):
            file.append({"id": row["id"], "sample": row["sample"], **asdict(outcome.grade), "text": outcome.text})


def _sequences(job: Job, samples: int) -> list[tuple[list[int], list[int]]]:
    """Prompt and completion ids of the first `samples` non-empty completions of each question."""
    prompts = {problem.id: prompt for problem, prompt in zip(job.problems, job.prompts, strict=True)}
    return [
        (prompts[row["id"]], row["token_ids"]) for row in _saved(job) if row["sample"] < samples and row["token_ids"]
    ]


def _saved(job: Job) -> list[dict[str, Any]]:
    """The samples on disk that this evaluation asks for, in the order of questions and sample numbers."""
    order = {problem.id: index for index, problem in enumerate(job.problems)}
    rows = [
        row for row in read_jsonl(job.folder / "samples.jsonl") if row["id"] in order and row["sample"] < job.samples
    ]
    return sorted(rows, key=lambda row: (order[row["id"]], row["sample"]))


def _missing(job: Job) -> list[tuple[int, int]]:
    done = {(row["id"], row["sample"]) for row in _saved(job)}
    return [
        (question, sample)
        for question, problem in enumerate(job.problems)
        for sample in range(job.samples)
        if (problem.id, sample) not in done
    ]


if __name__ == "__main__":
    run_stage(run)
