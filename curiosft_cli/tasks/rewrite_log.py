"""The saved answers of a clean-up, and what they decide: a restart asks only for what is not here."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
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
        addition: what follows Table 8's message.
        prompt_hash: first 16 digits of the SHA-256 of the whole prompt.
    """

    addition: str
    prompt_hash: str

    @classmethod
    def with_addition(cls, addition: str) -> Attempt:
        """Table 8 and this addition."""
        return cls(addition, hashlib.sha256((REPHRASE_PROMPT + addition).encode()).hexdigest()[:16])


FIRST = Attempt.with_addition("")
SECOND = Attempt.with_addition(STRICTER)


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

    def attempts(self, question: str) -> Iterator[tuple[Attempt, Row | None]]:
        """The ways of asking that this question needs, with what is saved of them.

        Lazy: what is saved between two of them decides whether there is a second one.
        """
        yield FIRST, self.get(FIRST, question)
        first = self.get(FIRST, question)
        if self._second_attempt and is_answer(first) and verdict_on(question, first).outcome != "accepted":
            yield SECOND, self.get(SECOND, question)

    def lacks(self, question: str) -> bool:
        """Whether something remains to be asked; a failure is asked again."""
        return not all(is_answer(row) for _, row in self.attempts(question))

    def decide(self, question: str) -> Decision:
        """The first accepted answer, else the original with the first answer's verdict."""
        decisions = []
        for attempt, row in self.attempts(question):
            if row is None:
                raise KeyError(f"question {question[:40]!r} was not asked")
            verdict = verdict_on(question, row)
            text = tidy(row["answer"]) if verdict.outcome == "accepted" else question
            decisions.append(Decision(text, verdict, attempt, row))
        return next((d for d in decisions if d.verdict.outcome == "accepted"), decisions[0])

    def totals(self) -> dict[str, int]:
        """Answers and their tokens, over all runs."""
        rows = [row for row in self._rows.values() if is_answer(row)]
        return {
            "answers": len(rows),
            "prompt_tokens": sum(row["prompt_tokens"] for row in rows),
            "completion_tokens": sum(row["completion_tokens"] for row in rows),
        }

    def _key(self, attempt: Attempt, question: str) -> str:
        """Identity of a request: prompt, model, sampling and question."""
        return hashlib.sha256(repr((attempt.prompt_hash, self._settings, question)).encode()).hexdigest()


def is_answer(row: Row | None) -> bool:
    """Whether a saved line is an answer, not a failure."""
    return row is not None and "error" not in row


def verdict_on(question: str, row: Row | None) -> Verdict:
    """The verdict on a saved answer or failure."""
    if row is None or "error" in row:
        return Verdict("kept_original", f"no answer: {row['error'] if row else 'not asked'}")
    if row["truncated"]:
        return Verdict("kept_original", "truncated")
    return judge(question, row["answer"])
