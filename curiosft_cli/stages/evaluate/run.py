"""Evaluation: sample every benchmark from every checkpoint, grade the saved samples, summarise.

    for each checkpoint and benchmark:
        sample what is missing   -> samples.jsonl, one line per completion in finishing order; compressed at the end
        measure entropy          -> entropy.json: teacher-forced, temperature 1, full vocabulary, nats
        grade and summarise      -> grades.jsonl.zst, questions.jsonl and, last, summary.json

Samples are drawn once and kept; grading reads them back, one question at a time. A killed evaluation loses only the
unfinished samples. If more samples are wanted later, only the missing ones are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curiosft_cli.engine.endpoint.transport import check_listening
from curiosft_cli.evaluation.fingerprint import questions_digest
from curiosft_cli.evaluation.metrics import self_check
from curiosft_cli.evaluation.samples import SAMPLES, Generations
from curiosft_cli.evaluation.score import claim_folder, is_summarised, summarise_benchmark, write_run_summary
from curiosft_cli.evaluation.tasks import BenchmarkTask, load_tasks
from curiosft_cli.run.device import hardware
from curiosft_cli.run.files import present, read_json, write_json
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import StageDir, resolve_checkpoint
from curiosft_cli.run.sections import Config
from curiosft_cli.stages.evaluate.sampling import Job, check_endpoint, encoded, identity, sample


def run(config: Config, stage: StageDir) -> None:
    """Evaluate every checkpoint reference of `eval.checkpoints` on every benchmark."""
    self_check()
    check_endpoint(config)
    console = Console(stage.log_file)
    tasks = load_tasks(config)
    paths = {reference: resolve_checkpoint(reference, config) for reference in config.eval.checkpoints}
    for reference, path in paths.items():
        evaluate_checkpoint(config, stage, reference, path, tasks, console)
    write_run_summary(config, stage)
    console.close()


def evaluate_checkpoint(
    config: Config, stage: StageDir, reference: str, path: str, tasks: list[BenchmarkTask], console: Console
) -> None:
    """Sample, grade and summarise the benchmarks that this checkpoint still lacks."""
    from curiosft_cli.train.load import load_tokenizer

    folders = {task.name: stage.benchmark(reference, task.name) for task in tasks}
    todo = [task for task in tasks if not is_summarised(folders[task.name], task, config)]
    if not todo:
        console.say(f"{reference}: complete already")
        return
    if config.eval.engine == "openai" and any(_lacks_samples(folders[task.name], task) for task in todo):
        check_listening(config.eval.base_url or "")
    model = identity(config, path)
    tokenizer = None if config.eval.endpoint == "chat" else load_tokenizer(path, config.model)
    jobs = [Job(task, encoded(config, task, tokenizer), folders[task.name]) for task in todo]
    for job in jobs:
        claim_folder(job.folder, model)
    sample(config, path, tokenizer, jobs, console, reference)
    entropies = measure_entropy(config, path, jobs)
    for job in jobs:
        summarise_benchmark(
            config,
            job.folder,
            job.task,
            job.generations(),
            reference=reference,
            model=model,
            entropy=entropies.get(job.task.name),
            hardware=hardware(),
            console=console,
        )
        console.say(f"{reference} on {job.task.name}: done")


def _lacks_samples(folder: Path, task: BenchmarkTask) -> bool:
    return bool(Generations(present(folder / SAMPLES), task.problems).missing(task.samples))


def measure_entropy(config: Config, path: str, jobs: list[Job]) -> dict[str, dict[str, Any]]:
    """Teacher-forced entropy in nats of the saved completions, by benchmark. The engine is closed before.

    entropy.json keeps it: it depends neither on the grader nor on samples that are drawn later.
    """
    count = config.eval.entropy_samples
    if not count or config.eval.engine == "openai":
        return {}
    from curiosft_cli.train.entropy import completion_entropies

    known: dict[str, dict[str, Any]] = {}
    sequences: dict[str, Iterator[tuple[str, list[int], list[int]]]] = {}
    stamps = {job.task.name: _entropy_stamp(job, count) for job in jobs}
    for job in jobs:
        file = job.folder / "entropy.json"
        saved = read_json(file) if file.exists() else {}
        if saved.get("of") == stamps[job.task.name]:
            known[job.task.name] = saved["entropy"]
        else:
            sequences[job.task.name] = _sequences(job, count)
    if sequences:
        measured = completion_entropies(path, config.model, config.eval.precision, sequences)
        for job in jobs:
            if found := measured.get(job.task.name):
                write_json(job.folder / "entropy.json", {"of": stamps[job.task.name], "entropy": found})
        known |= measured
    return known


def _entropy_stamp(job: Job, count: int) -> dict[str, Any]:
    return {"samples": min(count, job.task.samples), "questions": questions_digest(job.task.problems)}


def _sequences(job: Job, samples: int) -> Iterator[tuple[str, list[int], list[int]]]:
    """Question, prompt and completion ids, one completion after the other; empty ones are left out."""
    for question, saved in job.generations().read(min(samples, job.task.samples)):
        if saved.token_ids:
            yield job.task.problems[question].id, job.prompts[question], list(saved.token_ids)


if __name__ == "__main__":
    run_stage(run)
