"""The numbers of one checkpoint on one benchmark, from its graded samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from curiosft_cli.tasks.metrics import avg_at_k, ngram_diversity, pass_curve, question_means, standard_error
from curiosft_cli.tasks.records import Grade

PERCENT = 100.0


@dataclass(frozen=True)
class Outcome:
    """One graded sample.

    Attributes:
        grade: see `records.Grade`.
        text: the completion.
        tokens: its length, end token included.
        finish_reason: "stop", "length" or "prompt_too_long".
    """

    grade: Grade
    text: str
    tokens: int
    finish_reason: str


def summarise(questions: Sequence[Sequence[Outcome]], pass_k: Sequence[int]) -> dict[str, Any]:
    """Percentages, lengths and counts over the samples of each question.

    Questions whose gold cannot be graded are left out of the scores and counted. "avg" is the answer-only score,
    "strict" the training reward; "standard_error" treats the question as the unit.

    Args:
        questions: the outcomes of each question, equally many.
        pass_k: k of Pass@k, each at most the number of samples.
    """
    gradable = [samples for samples in questions if all(sample.grade.answer is not None for sample in samples)]
    everything = [sample for samples in questions for sample in samples]
    answer = [[sample.grade.answer or 0.0 for sample in samples] for samples in gradable]
    strict = [[sample.grade.strict or 0.0 for sample in samples] for samples in gradable]
    tokens = [sample.tokens for sample in everything]
    return {
        "questions": len(questions),
        "samples": len(questions[0]),
        "ungradable_questions": len(questions) - len(gradable),
        "avg": PERCENT * avg_at_k(answer),
        "standard_error": PERCENT * standard_error(question_means(answer)),
        "pass": {str(k): PERCENT * value for k, value in pass_curve(answer, pass_k).items()},
        "strict": PERCENT * avg_at_k(strict),
        "format": _share(sample.grade.format_error is None for sample in everything),
        "no_answer": _share(sample.grade.extracted is None for sample in everything),
        "fallback": _share(sample.grade.fallback for sample in everything),
        "truncated": _share(sample.finish_reason == "length" for sample in everything),
        "prompt_too_long": sum(sample.finish_reason == "prompt_too_long" for sample in everything),
        "reasons": dict(sorted(Counter(sample.grade.reason for sample in everything).items())),
        "grader_status": dict(sorted(Counter(sample.grade.status for sample in everything).items())),
        "tokens_mean": fmean(tokens),
        "tokens_median": median(tokens),
        "ngram_diversity_4": ngram_diversity([[sample.text for sample in samples] for samples in questions]),
    }


def _share(flags: Any) -> float:
    return PERCENT * fmean(bool(flag) for flag in flags)
