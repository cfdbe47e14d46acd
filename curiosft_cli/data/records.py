"""The records that pass between packages: a problem, and the grade of one completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AnswerKind = Literal["math", "choice"]
Grader = Literal["curiosft", "official", "official-reward", "math-verify", "string"]
GradeStatus = Literal["ok", "timeout", "oom", "crash", "parse_error"]
GradeReason = Literal["correct", "wrong", "no_answer", "bad_format", "truncated", "timeout", "ungradable_gold"]


@dataclass(frozen=True)
class Problem:
    """One question with its gold answer and, if the data has one, the expert's response.

    Attributes:
        id: unique within its source.
        question: the text of the user message, without choices.
        answer: the gold: LaTeX or plain text for `math`, a letter for `choice`.
        source: data set or benchmark that it comes from.
        kind: "math" for a free-form answer, "choice" for multiple choice.
        choices: the texts of the options A, B, ... (`choice` only).
        response: the expert's response without the leading think tag, or "".
        system: the system message of its file, if it is kept.
    """

    id: str
    question: str
    answer: str
    source: str = ""
    kind: AnswerKind = "math"
    choices: tuple[str, ...] = ()
    category: str = ""
    response: str = ""
    system: str = ""


@dataclass(frozen=True)
class Grade:
    """The grade of one completion.

    Attributes:
        strict: 1.0 if correct in the required format, else 0.0; None if the gold cannot be graded.
        answer: 1.0 if the answer is right in any format, else 0.0; None if the gold cannot be graded.
        extracted: the answer text that was compared; None if there is none.
        letter: the chosen letter (`choice` only).
        status: whether grading finished; anything but "ok" scores 0 and is counted.
        reason: the reason of the strict score.
        format_error: the first broken rule, "F1".."F4"; None if the format is right.
        fallback: the answer comes from an explicit statement, not from a box.
    """

    strict: float | None
    answer: float | None
    extracted: str | None
    letter: str | None
    status: GradeStatus
    reason: GradeReason
    format_error: str | None = None
    fallback: bool = False
