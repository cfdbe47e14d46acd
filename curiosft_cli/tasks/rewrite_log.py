"""The saved answers of a clean-up, and what they decide: a restart asks only for what is not here."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from curiosft_cli.run.files import JsonLines, read_jsonl
from curiosft_cli.tasks.datafiles import Row
from curiosft_cli.tasks.prompts import REPHRASE_PROMPT
from curiosft_cli.tasks.rewrites import STRICTER, Verdict, judge, tidy


@dataclass(frozen=True)
class Attempt:
    """One way of asking.

    Attributes:
        name: for progress.
        addition: what follows Table 8's message.
        prompt_hash: first 16 digits of the SHA-256 of the whole prompt.
    """

    name: str
    addition: str
    prompt_hash: str

    @classmethod
    def with_addition(cls, name: str, addition: str) -> Attempt:
        """Table 8 and this addition."""
        return cls(name, addition, hashlib.sha256((REPHRASE_PROMPT + addition).encode()).hexdigest()[:16])


FIRST = Attempt.with_addition("questions", "")
SECOND = Attempt.with_addition("second attempts", STRICTER)
ATTEMPTS = (FIRST, SECOND)


@dataclass(frozen=True)
class Decision:
    """What becomes of one question.

    Attributes:
        question: the cleaned one, or the original.
        verdict: why.
        attempt: the way of asking that decided.
        answer: the saved answer that decided.
    """

    question: str
    verdict: Verdict
    attempt: Attempt
    answer: Row


class RewriteLog:
    """An append-only file of answers and failures; of two lines with one key the later one counts.

    Args:
        path: the JSONL file.
        model: the model's name.
        sampling: temperature and the longest answer, in tokens.
        second_attempt: a refused first answer is asked again.
    """

    def __init__(self, path: Path, model: str, sampling: tuple[float, int], *, second_attempt: bool) -> None:
        self._settings = (model, *sampling)
        self._second_attempt = second_attempt
        self._file = JsonLines(path)
        self._rows: dict[str, Row] = {row["key"]: row for row in read_jsonl(path)}
        self._verdicts: dict[str, Verdict] = {}

    def __enter__(self) -> RewriteLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def get(self, attempt: Attempt, question: str) -> Row | None:
        """The saved answer or failure of this way of asking."""
        return self._rows.get(self._key(attempt, question))

    def save(self, attempt: Attempt, question: str, row: Row) -> None:
        """Append an answer (`answer`, `truncated`, ...) or a failure (`error`) and flush it."""
        key, now = self._key(attempt, question), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = {"key": key, "prompt_hash": attempt.prompt_hash, "time": now, **row}
        self._file.append(row)
        self._rows[key] = row
        self._verdicts.pop(key, None)

    def wants(self, attempt: Attempt, question: str) -> bool:
        """Whether this way of asking is still to be tried; a failure is tried again."""
        if is_answer(self.get(attempt, question)):
            return False
        return attempt is FIRST or self._needs_second(question)

    def decide(self, question: str) -> Decision:
        """The first accepted answer, else the original with the first answer's verdict."""
        first = self._decision(FIRST, question)
        if not self._needs_second(question):
            return first
        second = self._decision(SECOND, question)
        return second if second.verdict.outcome == "accepted" else first

    def totals(self) -> dict[str, int]:
        """Answers and their tokens, over all runs."""
        rows = [row for row in self._rows.values() if is_answer(row)]
        return {
            "answers": len(rows),
            "prompt_tokens": sum(row["prompt_tokens"] for row in rows),
            "completion_tokens": sum(row["completion_tokens"] for row in rows),
        }

    def _needs_second(self, question: str) -> bool:
        """Whether the first answer is there and was not accepted."""
        is_asked = self._second_attempt and is_answer(self.get(FIRST, question))
        return is_asked and self._decision(FIRST, question).verdict.outcome != "accepted"

    def _decision(self, attempt: Attempt, question: str) -> Decision:
        row = self.get(attempt, question)
        if row is None:
            raise KeyError(f"question {question[:40]!r} was not asked")
        key = row["key"]
        if key not in self._verdicts:
            self._verdicts[key] = verdict_on(question, row)
        verdict = self._verdicts[key]
        return Decision(tidy(row["answer"]) if verdict.outcome == "accepted" else question, verdict, attempt, row)

    def _key(self, attempt: Attempt, question: str) -> str:
        """Identity of a request: prompt, model, sampling and question."""
        return hashlib.sha256(repr((attempt.prompt_hash, self._settings, question)).encode()).hexdigest()


def is_answer(row: Row | None) -> bool:
    """Whether a saved line is an answer, not a failure."""
    return row is not None and "error" not in row


def verdict_on(question: str, row: Row) -> Verdict:
    """The verdict on a saved answer or failure."""
    if "error" in row:
        return Verdict("kept_original", f"no answer: {row['error']}")
    if row["truncated"]:
        return Verdict("kept_original", "truncated")
    return judge(question, row["answer"])
