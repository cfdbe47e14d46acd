"""The records that pass between the rooms: a problem, and the grade of one completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AnswerKind = Literal["math", "choice"]
Grader = Literal["curiosft", "official", "official-reward", "math-verify", "string"]
GradeStatus = Literal["ok", "timeout", "oom", "crash", "parse_error"]
GradeReason = Literal["correct", "wrong", "no_answer", "bad_format", "truncated", "timeout", "ungradable_gold"]


@dataclass(frozen=True)
class Problem:
    """One question with its gold answer, and the expert's response where the data has one.

    Attributes:
        id: unique within its source.
        question: the text that the user message carries (choices not included).
        answer: the gold: LaTeX or plain text for `math`, a letter for `choice`.
        source: data set or benchmark it came from.
        kind: which grader reads it.
        choices: the option texts in order A, B, ... (`choice` only).
        response: the expert's response without the leading think tag, or "" (supervised stage only).
        system: the system message that its file brings, where that is to be kept.
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
        strict: 1.0 if correct in the required format, else 0.0; None when the gold cannot be graded.
        answer: 1.0 if the answer is right whatever the format; None when the gold cannot be graded.
        extracted: the answer text that was compared, None when there is none.
        letter: the chosen letter (`choice` only).
        status: how grading itself went; anything but "ok" scores 0 and is counted.
        reason: why the strict score is what it is.
        format_error: the first rule broken, "F1".."F4", or None when the format is right.
        fallback: the answer was found by an explicit statement, not a box.
    """

    strict: float | None
    answer: float | None
    extracted: str | None
    letter: str | None
    status: GradeStatus
    reason: GradeReason
    format_error: str | None = None
    fallback: bool = False
