"""From saved samples to numbers, without a model: grade, write grades and questions, add up."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curiosft_cli.data.records import Grader, Problem
from curiosft_cli.evaluation.metrics import standard_error
from curiosft_cli.evaluation.results import GRADES, QUESTIONS
from curiosft_cli.evaluation.samples import Generations, Sample
from curiosft_cli.evaluation.summary import Outcome, Summary
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import PARTIAL_SUFFIX, JsonLines, compress_jsonl

Progress = Callable[[int, int], None]


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
    progress: Progress,
) -> dict[str, Any]:
    """Grade the first `samples` of each question; write grades.jsonl.zst and questions.jsonl; return the numbers.

    Memory holds one question and what the graders are at, however many questions there are.

    Args:
        generations: the saved samples.
        problems: in the order of `generations`.
        samples: of each question.
        folder: of the two files, which appear complete.
        pool: grades, and nothing else meanwhile.
        grader: see `grading.grade`.
        prefilled: the prompts ended with the opening think tag, where the samples do not say.
        pass_k: see `Summary.numbers`.
        progress: called with (samples graded, samples in all).

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
                questions.append(summary.add(problems[index], outcomes))
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
    waiting: deque[tuple[int, Sample]] = deque()

    def items() -> Iterator[GradeItem]:
        for index, sample in generations.read(samples):
            waiting.append((index, sample))
            truncated = sample.finish_reason == "length"
            given = prefilled if sample.prefilled is None else sample.prefilled
            yield GradeItem(sample.text, problems[index], given, truncated, grader=grader)

    for grade in pool.grade_in_order(items()):
        index, sample = waiting.popleft()
        given = prefilled if sample.prefilled is None else sample.prefilled
        yield index, Outcome(grade, sample.text, sample.tokens, sample.finish_reason, given)


PERCENT = 100.0


def contaminated_ids(report: Path, benchmark: str, known: Collection[str] | None = None) -> set[str]:
    """Ids of the benchmark's questions that a report of `curiosft data check --json` lists as hits.

    Args:
        report: the file.
        benchmark: its name.
        known: ids of all its questions; an id that is not among them is refused. None does not look.

    Raises:
        CurioError: there is no such report, or it did not compare with these questions.
    """
    try:
        found = json.loads(report.read_text(encoding="utf-8"))["contamination"]
        benchmarks, hits = found["benchmarks"], found["hits"]
    except OSError as error:
        raise CurioError(f"cannot read {report}: {error.strerror}", "Check eval.contamination.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CurioError(
            f"{report} is not a report of `curiosft data check --json` ({error})", "Check eval.contamination."
        ) from None
    if benchmark not in benchmarks:
        raise CurioError(
            f"{report} did not compare the data with {benchmark}, only with {', '.join(benchmarks) or 'nothing'}",
            f"Check the data again with check.benchmarks holding {benchmark}.",
        )
    ids = {str(hit["id"]) for hit in hits if hit["benchmark"] == benchmark}
    if known is not None and (strange := sorted(ids - set(known))):
        raise CurioError(
            f"{report} lists question {strange[0]} of {benchmark}, which this evaluation does not have",
            f"Give data check and eval the same eval.data.{benchmark}.",
        )
    return ids


def clean_numbers(rows: Iterable[Mapping[str, Any]], contaminated: Collection[str]) -> dict[str, Any]:
    """Percentages over the questions that are gradable and not contaminated; null where none is left.

    Args:
        rows: of questions.jsonl: `id`, and `answer` and `strict` as means over the samples.
        contaminated: ids to leave out.
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
