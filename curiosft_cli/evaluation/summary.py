"""The numbers of one checkpoint on one benchmark, summed question by question."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from curiosft_cli.data.prompts import messages
from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.data.response_format import THINK_CLOSE
from curiosft_cli.evaluation.metrics import (
    interval_95,
    majority_score,
    ngram_diversities,
    pass_at_k,
    standard_error,
)
from curiosft_cli.grading.match import same_spelling_key
from curiosft_cli.run.errors import CurioError

PERCENT = 100.0
PROMPT_TOO_LONG = "prompt_too_long"
REFUSED = "refused"
ORDERS = (1, 2, 3, 4)
HEADLINE = 4
"""The order of the n-grams of the diversity that tables show."""
RIGHT = ("right",)


@dataclass(frozen=True)
class Outcome:
    """One graded sample.

    Attributes:
        grade: its grade.
        text: its text.
        tokens: its length with the end token.
        finish_reason: see `samples.Sample`.
        prefilled: whether its prompt ended with the opening think tag.
    """

    grade: Grade
    text: str
    tokens: int
    finish_reason: str
    prefilled: bool = True


def _numbers() -> array[float]:
    return array("d")


@dataclass
class Summary:
    """Sums up questions. It keeps a few numbers per question and sample, and no texts.

    Questions whose gold cannot be graded are counted, but are in no score. Shares and lengths are over all samples.
    """

    samples: int = 0
    questions: int = 0
    answer: array[float] = field(default_factory=_numbers)
    strict: array[float] = field(default_factory=_numbers)
    majority: array[float] = field(default_factory=_numbers)
    unique: array[float] = field(default_factory=_numbers)
    diversities: dict[int, array[float]] = field(default_factory=lambda: {n: _numbers() for n in ORDERS})
    tokens: array[int] = field(default_factory=lambda: array("q"))
    whole: array[float] = field(default_factory=_numbers)
    prefilled: set[bool] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, problem: Problem, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Add one question with all its samples; return its row for questions.jsonl.

        "answer" and "strict" are means over the samples; "majority" is the score of the most frequent answer. These
        are None for an ungradable gold. "unique" is the number of different answers, "diversity" that of 4-grams.
        """
        if self.samples not in (0, len(outcomes)):
            raise CurioError(
                f"question {problem.id} has {len(outcomes)} samples, the one before {self.samples}",
                "Give every question the same number of samples.",
            )
        self.samples, self.questions = len(outcomes), self.questions + 1
        question = messages(problem, system="", prefix="")[-1]["content"]
        row: dict[str, Any] = {"id": problem.id, "question": question, "gold": problem.answer, "samples": len(outcomes)}
        for outcome in outcomes:
            self._count(problem, outcome)
        keys = [_answer_key(problem, outcome.grade) for outcome in outcomes]
        row["unique"] = len({key for key in keys if key is not None})
        self.unique.append(row["unique"])
        found = ngram_diversities([[outcome.text for outcome in outcomes]], ORDERS)
        row["diversity"] = found[HEADLINE]
        for n, value in found.items():
            if value is not None:
                self.diversities[n].append(value)
        if any(outcome.grade.answer is None for outcome in outcomes):
            return {**row, "answer": None, "strict": None, "majority": None}
        scores = [outcome.grade.answer or 0.0 for outcome in outcomes]
        row["answer"], row["strict"] = fmean(scores), fmean(outcome.grade.strict or 0.0 for outcome in outcomes)
        row["majority"] = majority_score(keys, scores)
        for name in ("answer", "strict", "majority"):
            getattr(self, name).append(row[name])
        self.whole.extend(s for s, outcome in zip(scores, outcomes, strict=True) if outcome.finish_reason != "length")
        return row

    def numbers(self, pass_k: Sequence[int]) -> dict[str, Any]:
        """Percentages, lengths and counts. An entry is None if there is nothing to compute it from.

        "avg" is the answer-only score, "strict" the training reward. "standard_error" is over questions.
        "avg_untruncated" leaves out samples that were cut at the length limit.

        Raises:
            CurioError: a k of `pass_k` is above the number of samples.
        """
        right = [round(mean * self.samples) for mean in self.answer]
        passed = {str(k): [pass_at_k(self.samples, c, k) for c in right] for k in pass_k}
        return {
            "questions": self.questions,
            "samples": self.samples,
            "ungradable_questions": self.questions - len(self.answer),
            "avg": _percent_mean(self.answer),
            "standard_error": _percent_error(self.answer),
            "interval_95": [PERCENT * end for end in interval_95(self.answer)] if len(self.answer) > 1 else None,
            "pass": {k: _percent_mean(values) for k, values in passed.items()},
            "pass_standard_error": {k: _percent_error(values) for k, values in passed.items()},
            "maj": _percent_mean(self.majority),
            "strict": _percent_mean(self.strict),
            "strict_standard_error": _percent_error(self.strict),
            "avg_untruncated": _percent_mean(self.whole),
            **{name: self._share(name) for name in ("format", "no_thought", "no_answer", "fallback", "truncated")},
            PROMPT_TOO_LONG: self.counts[PROMPT_TOO_LONG],
            REFUSED: self.counts[REFUSED],
            "prefilled": next(iter(self.prefilled)) if len(self.prefilled) == 1 else None,
            "reasons": dict(sorted(self.reasons.items())),
            "grader_status": dict(sorted(self.statuses.items())),
            "tokens_mean": fmean(self.tokens),
            "tokens_median": median(self.tokens),
            "unique_answers": fmean(self.unique),
            **{f"ngram_diversity_{n}": fmean(found) if found else None for n, found in self.diversities.items()},
            "ngram_diversity_standard_error": optional_error(self.diversities[HEADLINE]),
        }

    def _count(self, problem: Problem, outcome: Outcome) -> None:
        grade = outcome.grade
        answer = grade.letter if problem.kind == "choice" else grade.extracted
        self.tokens.append(outcome.tokens)
        self.reasons[grade.reason] += 1
        self.statuses[grade.status] += 1
        self.counts["format"] += grade.format_error is None
        self.counts["no_answer"] += answer is None
        self.counts["fallback"] += grade.fallback
        self.counts["no_thought"] += THINK_CLOSE not in outcome.text
        self.counts["truncated"] += outcome.finish_reason == "length"
        self.prefilled.add(outcome.prefilled)
        for reason in (PROMPT_TOO_LONG, REFUSED):
            self.counts[reason] += outcome.finish_reason == reason

    def _share(self, name: str) -> float:
        return PERCENT * self.counts[name] / len(self.tokens)


def _answer_key(problem: Problem, grade: Grade) -> tuple[str, ...] | None:
    """Equal for equal answers: right answers are all equal, a wrong one is its letter, number or spelling."""
    if grade.answer:
        return RIGHT
    if problem.kind == "choice":
        return None if grade.letter is None else ("letter", grade.letter)
    return None if grade.extracted is None else same_spelling_key(grade.extracted)


def optional_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean over questions; None for fewer than two."""
    return standard_error(values) if len(values) > 1 else None


def _percent_error(values: Sequence[float]) -> float | None:
    error = optional_error(values)
    return None if error is None else PERCENT * error


def _percent_mean(values: Sequence[float]) -> float | None:
    return PERCENT * fmean(values) if values else None
