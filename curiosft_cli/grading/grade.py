"""The grade of one completion: the strict reward of training and the answer-only score of evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from curiosft_cli.data.records import Grade, Grader, GradeReason, GradeStatus, Problem
from curiosft_cli.data.response_format import END_TOKENS, THINK_OPEN, answer_region, cut_at_end_token, format_error
from curiosft_cli.grading import symbolic
from curiosft_cli.grading.choices import LETTERS, named_letter, stated_letter
from curiosft_cli.grading.extract import Extraction, extract_answer
from curiosft_cli.grading.match import is_within_limits, match_math
from curiosft_cli.grading.normalise import normalise
from curiosft_cli.grading.other_graders import OTHER_GRADERS, REWARDS
from curiosft_cli.grading.parse import collection, plain_number, words


@dataclass(frozen=True)
class GradeItem:
    """One completion to grade: what travels to a worker.

    Attributes:
        completion: the generated text, without the prompt.
        problem: `kind` picks free-form matching or letters.
        prefilled: the prompt ended with the opening think tag, so the completion lacks it.
        truncated: generation stopped at its length limit (names the reason of a broken format, changes no score).
        end_tokens: texts that end a turn; the tokenizer's own EOS belongs here.
        grader: one of `other_graders.OTHER_GRADERS` scores `answer` in its own way and ignores the format;
            `strict` needs both. One of `other_graders.REWARDS` gives both scores.
    """

    completion: str
    problem: Problem
    prefilled: bool = True
    truncated: bool = False
    end_tokens: tuple[str, ...] = END_TOKENS
    grader: Grader = "curiosft"

    def grade(self, library_timeout_s: float = symbolic.LIBRARY_TIMEOUT_S) -> Grade:
        """Grade it. Never raises on any text; main thread only. Math-Verify gets so many CPU seconds for each call."""
        text, extraction, unscored = self._read()
        gold, matched, status = self.problem.answer, False, "ok"
        if not is_gradable(self.problem, library_timeout_s):
            return unscored
        if self.grader in OTHER_GRADERS:
            matched, status = OTHER_GRADERS[self.grader](text, gold, library_timeout_s)
        elif self.problem.kind == "choice":
            matched = unscored.letter == _gold_letter(self.problem)
        elif extraction.content is not None:
            matched, status = match_math(extraction.content, gold, library_timeout_s)
            if not matched and len(extraction.boxes) > 1:
                # A list or a set may also be answered with one box for each value.
                bracket, values = collection(normalise(gold)) or ("", [])
                if bracket != "(" and len(values) == len(extraction.boxes):
                    matched, status = match_math(",".join(extraction.boxes), gold, library_timeout_s)
        return self._scored(unscored, matched, status)

    def unmatched(self, status: GradeStatus) -> Grade:
        """Return the grade when the comparison did not finish: score 0, format and extraction as usual."""
        return self._scored(self._read()[2], False, status)

    def _read(self) -> tuple[str, Extraction, Grade]:
        """Return the text, what it says, and its grade without scores: as it stays when the gold cannot be graded."""
        text, problem = cut_at_end_token(self.completion, self.end_tokens), self.problem
        region = answer_region(text)
        extraction = extract_answer(region)
        letter = None
        if problem.kind == "choice":
            n_choices = len(problem.choices) or len(LETTERS)
            if extraction.has_box:
                letter = named_letter(extraction.content or "", n_choices, problem.choices)
            elif letter := stated_letter(region, n_choices, problem.choices):
                extraction = replace(extraction, content=letter)
        error = format_error(f"{THINK_OPEN}\n{text}" if self.prefilled else text)
        is_stated = extraction.content is not None and not extraction.has_box
        unscored = Grade(None, None, extraction.content, letter, "ok", "ungradable_gold", error, is_stated)
        return text, extraction, unscored

    def _scored(self, unscored: Grade, matched: bool, status: GradeStatus) -> Grade:
        error = unscored.format_error
        strict = matched and (error is None or self.grader in REWARDS)
        has_answer = (unscored.extracted if self.problem.kind == "math" else unscored.letter) is not None
        reason: GradeReason = "timeout" if status == "timeout" else "wrong"
        if strict:
            reason = "correct"
        elif error is not None and self.truncated:
            reason = "truncated"
        elif error in (None, "F4") and not has_answer:
            reason = "no_answer"
        elif error is not None:
            reason = "bad_format"
        return replace(unscored, strict=float(strict), answer=float(matched), status=status, reason=reason)


def grade(completion: str, problem: Problem, **options: Any) -> Grade:
    """Grade one completion against the gold of its problem, with the other fields of a `GradeItem`."""
    return GradeItem(completion, problem, **options).grade()


def is_gradable(problem: Problem, library_timeout_s: float = symbolic.LIBRARY_TIMEOUT_S) -> bool:
    """Say whether the gold can be graded: a letter within the choices, or a text that can be parsed in time."""
    if problem.kind == "choice":
        return _gold_letter(problem) is not None
    clean = normalise(problem.answer)
    if not clean or not is_within_limits(clean):
        return False
    _, values = collection(clean) or ("", [clean])
    # The first two save the parser's 10 ms: such a gold can be met, if only by its like.
    is_simple = any(all(map(read, values)) for read in (plain_number, words))
    return is_simple or symbolic.read(clean, library_timeout_s)[1] == "ok"


def _gold_letter(problem: Problem) -> str | None:
    letter = problem.answer.strip(" ().").upper()
    return letter if len(letter) == 1 and letter in LETTERS[: len(problem.choices) or None] else None
