"""Grade saved samples without a model, and write the results of a benchmark and of a whole evaluation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curiosft_cli.data.benchmarks import BENCHMARKS
from curiosft_cli.data.records import Grader, Problem
from curiosft_cli.evaluation.fingerprint import data_commit, grader_identity, questions_digest
from curiosft_cli.evaluation.metrics import ratio_values, standard_error
from curiosft_cli.evaluation.results import GRADES, QUESTIONS, SUMMARY, suite_averages
from curiosft_cli.evaluation.samples import SAMPLES, Generations, Sample
from curiosft_cli.evaluation.summary import PERCENT, Outcome, Summary, optional_error
from curiosft_cli.evaluation.tasks import BenchmarkTask, prefill
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import PARTIAL_SUFFIX, JsonLines, compress_jsonl, present, read_json, read_jsonl, write_json
from curiosft_cli.run.log import Console, environment
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config

# If one of these settings has changed, the summary is made again from the saved samples.
SUMMARY_SETTINGS = ("limit", "pass_k", "entropy_samples", "grader", "contamination")


def claim_folder(folder: Path, model: Mapping[str, Any]) -> None:
    """Write model.json, which says which model the samples of this folder come from.

    Raises:
        CurioError: the folder has samples of another model.
    """
    file = folder / "model.json"
    if file.exists():
        known = read_json(file)
        samples = present(folder / SAMPLES)
        drawn = samples.exists() and samples.stat().st_size > 0  # a try that failed at once leaves an empty file
        if drawn and _weights_of(known) != _weights_of(model):
            raise CurioError(
                f"the samples in {folder} were drawn from {_as_text(known)}, this is {_as_text(model)}",
                "Use another eval.name, or --fresh to sample again.",
            )
    write_json(file, dict(model))


def is_summarised(folder: Path, task: BenchmarkTask, config: Config) -> bool:
    """Whether the folder has this benchmark's summary, made with the same settings."""
    file = folder / SUMMARY
    if not file.exists():
        return False
    made = read_json(file)
    settings = config.eval.model_dump(mode="json")
    same = all(made.get("settings", {}).get(key) == settings[key] for key in SUMMARY_SETTINGS)
    return same and (made.get("samples"), made.get("questions")) == (task.samples, len(task.problems))


def summarise_benchmark(
    config: Config,
    folder: Path,
    task: BenchmarkTask,
    generations: Generations,
    *,
    reference: str,
    model: Mapping[str, Any],
    entropy: Mapping[str, Any] | None,
    hardware: Mapping[str, Any],
    console: Console,
) -> None:
    """Grade the saved samples; write grades.jsonl.zst, questions.jsonl and, last, summary.json.

    If the samples are in the same folder, they are complete now, and their file is compressed.
    """
    title = f"{reference} on {task.name}: graded"
    by_question = entropy.get("questions", {}) if entropy else {}
    with GraderPool(config.eval.grader_workers) as pool:
        numbers = score_samples(
            generations,
            task.problems,
            task.samples,
            folder,
            pool,
            grader=config.eval.grader,
            prefilled=prefill(config) != "",
            pass_k=task.pass_k,
            entropies=by_question,
            progress=lambda done, total: console.progress(done, total, title),
        )
    local = config.eval.data.get(task.name)
    hub = None if local else BENCHMARKS[task.name].hub
    if local or not hub:
        source = {"file": local} if local else {"built_in": True}
    else:
        source = {"hub": hub.name, "revision": hub.revision or "main", "commit": data_commit(hub.name, hub.revision)}
    mine = generations.path == folder / SAMPLES
    samples = compress_jsonl(generations.path) if mine else generations.path
    summary = {
        "checkpoint": reference,
        "model": dict(model),
        "benchmark": task.name,
        **numbers,
        "clean": None
        if task.contaminated is None
        else clean_numbers(read_jsonl(folder / QUESTIONS), task.contaminated),
        "entropy_nats": entropy["token_mean"] if entropy else None,
        "entropy_standard_error_nats": optional_error(list(ratio_values(*zip(*by_question.values(), strict=True))))
        if by_question
        else None,
        "entropy_seq_mean_nats": entropy["seq_mean"] if entropy else None,
        "grader": grader_identity(config.eval.grader),
        "settings": config.eval.model_dump(mode="json") | {"seed": config.run.seed},
        "prompt": {**config.model.model_dump(include={"system_prompt", "question_prefix"}), "prefill": prefill(config)},
        "data": {**source, "sha256": questions_digest(task.problems)},
        "generations": str(samples),
        "environment": {**environment(), **hardware},
    }
    write_json(folder / SUMMARY, summary)


def write_run_summary(config: Config, stage: StageDir) -> dict[str, Any]:
    """Write and return the summaries of all checkpoints and benchmarks, with the averages of the paper's two suites."""
    rows = [
        read_json(stage.benchmark(reference, name) / SUMMARY)
        for reference in config.eval.checkpoints
        for name in config.eval.benchmarks
    ]
    averages = {
        reference: suite_averages([row for row in rows if row["checkpoint"] == reference])
        for reference in config.eval.checkpoints
    }
    summary = {"results": rows, "averages": averages}
    write_json(stage.path / SUMMARY, summary)
    return summary


def score_samples(
    generations: Generations,
    problems: Sequence[Problem],
    samples: int,
    folder: Path,
    pool: GraderPool,
    *,
    grader: Grader,
    prefilled: bool,
    pass_k: Sequence[int],
    progress: Callable[[int, int], None],
    entropies: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Grade the first `samples` of each question; write grades.jsonl.zst and questions.jsonl; return the numbers.

    Memory holds one question and the samples that are being graded.

    Args:
        generations: the saved samples.
        problems: the questions, in the order of `generations`.
        samples: number per question.
        folder: gets the two files, each complete or not at all.
        pool: the graders; nothing else may use them at the same time.
        grader: see `grading.grade`.
        prefilled: whether the prompts ended with the opening think tag; used for samples that do not say.
        pass_k: see `Summary.numbers`.
        progress: called with (samples graded, all samples).
        entropies: question id -> (sum of the entropies of its tokens in nats, tokens), for questions.jsonl.

    Raises:
        CurioError: a sample is missing, or a k is above `samples`.
    """
    if lacking := generations.missing(samples):
        raise CurioError(
            f"{generations.path} lacks {len(lacking)} of {samples * len(problems)} samples, the first is sample "
            f"{lacking[0][1]} of question {problems[lacking[0][0]].id}",
            f"Ask for at most {generations.complete_samples()} samples (eval.samples), or draw the others first.",
        )
    summary = Summary()
    partials = [folder / f".{name}{PARTIAL_SUFFIX}" for name in (GRADES, QUESTIONS)]
    for partial in partials:
        partial.unlink(missing_ok=True)
    total = samples * len(problems)
    with JsonLines(partials[0]) as grades, JsonLines(partials[1]) as questions:
        outcomes: list[Outcome] = []
        for done, (index, outcome) in enumerate(_graded(generations, problems, samples, pool, grader, prefilled), 1):
            row = {"id": problems[index].id, "sample": len(outcomes), **asdict(outcome.grade)}
            grades.append({**row, "finish_reason": outcome.finish_reason, "tokens": outcome.tokens})
            outcomes.append(outcome)
            if len(outcomes) == samples:
                nats, tokens = (entropies or {}).get(problems[index].id, (None, 0))
                measured = {"entropy_sum_nats": nats, "entropy_tokens": tokens}
                questions.append(summary.add(problems[index], outcomes) | measured)
                outcomes = []
            progress(done, total)
    for partial, name in zip(partials, (GRADES, QUESTIONS), strict=True):
        partial.replace(folder / name)
    compress_jsonl(folder / GRADES)
    return summary.numbers(pass_k)


def _graded(
    generations: Generations,
    problems: Sequence[Problem],
    samples: int,
    pool: GraderPool,
    grader: Grader,
    prefilled: bool,
) -> Iterator[tuple[int, Outcome]]:
    """Yield (index of the question, graded sample) in order."""
    waiting: deque[tuple[int, Sample, bool]] = deque()

    def items() -> Iterator[GradeItem]:
        for index, sample in generations.read(samples):
            truncated = sample.finish_reason == "length"
            given = prefilled if sample.prefilled is None else sample.prefilled
            waiting.append((index, sample, given))
            yield GradeItem(sample.text, problems[index], given, truncated, grader=grader)

    for grade in pool.grade_in_order(items()):
        index, sample, given = waiting.popleft()
        yield index, Outcome(grade, sample.text, sample.tokens, sample.finish_reason, given)


def clean_numbers(rows: Iterable[Mapping[str, Any]], contaminated: Collection[str]) -> dict[str, Any]:
    """Percentages over the questions that are gradable and not contaminated; None if there are none.

    Args:
        rows: rows of questions.jsonl; `answer` and `strict` are means over the samples.
        contaminated: ids of the questions to leave out.
    """
    every = list(rows)
    clean = [row for row in every if row["id"] not in contaminated and row["answer"] is not None]
    answer, strict = ([row[name] for row in clean] for name in ("answer", "strict"))
    return {
        "questions": len(clean),
        "contaminated": sum(row["id"] in contaminated for row in every),
        "avg": PERCENT * sum(answer) / len(answer) if answer else None,
        "standard_error": PERCENT * standard_error(answer) if len(answer) > 1 else None,
        "strict": PERCENT * sum(strict) / len(strict) if strict else None,
    }


def _weights_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that identify a model. Its path is not one of them where there is a digest: a folder may move."""
    return {key: value for key, value in model.items() if key != "path" or "sha256" not in model}


def _as_text(model: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {str(value)[:60]}" for key, value in model.items())
