"""The saved answers of a clean-up, and what they decide: a restart asks only for what is not here."""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from curiosft_cli.data.files import Row
from curiosft_cli.data.prompts import REPHRASE_PROMPT
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import JsonLines
from curiosft_cli.stages.rephrase.checks import STRICTER, Verdict, guards_version, is_too_long, judge, tidy


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
        answer: the saved answer that decided; empty when the question was not asked.
    """

    question: str
    verdict: Verdict
    attempt: Attempt
    answer: Row


class Entry(NamedTuple):
    """Where a saved line is, and what it holds."""

    offset: int
    is_answer: bool
    is_accepted: bool | None


class RewriteLog:
    """An append-only file of answers and failures; of two lines with one key the later one counts.

    The key is made of prompt, model, sampling and question. Memory holds an index; texts are read when they are needed.

    Args:
        path: the JSONL file.
        model: the model's name.
        sampling: temperature and the longest answer, in tokens.
        second_attempt: a refused first answer is asked again.
        read_only: nothing is created or saved.

    Raises:
        CurioError: another process writes to it.
    """

    def __init__(
        self,
        path: Path,
        model: str,
        sampling: tuple[float, int],
        *,
        second_attempt: bool,
        read_only: bool = False,
    ) -> None:
        self._settings = (model, *sampling)
        self._second_attempt = second_attempt
        self._path = path
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = path.with_name(f".{path.name}.lock").open("w")
            take_lock(self._lock.fileno(), path)
            self._file = JsonLines(path)
        self._read = path.open("rb") if path.is_file() else None
        self._entries: dict[bytes, Entry] = {}
        self.totals = {"answers": 0, "requests": 0, "prompt_tokens": 0, "completion_tokens": 0}
        self.cost_usd = 0.0
        self.answer_s = 0.0
        self._index()

    def __enter__(self) -> RewriteLog:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._read, getattr(self, "_file", None), getattr(self, "_lock", None)):
            if file is not None:
                file.close()

    def save(self, attempt: Attempt, question: str, row: Row) -> Verdict:
        """Judge an answer (`answer`, `truncated`, ...) or a failure (`error`), append it and flush."""
        key, now = self._key(attempt, question), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        verdict = verdict_on(question, row)
        judged = {"verdict": verdict.outcome, "reason": verdict.reason, "guards": guards_version()}
        row = {"key": key.hex(), "prompt_hash": attempt.prompt_hash, "time": now, **row, **judged}
        offset = self._path.stat().st_size
        self._file.append(row)
        self._note(offset, row)
        return verdict

    def wants(self, question: str) -> bool:
        """Whether anything is still to be asked about this question."""
        return not is_too_long(question) and any(self.lacks(attempt, question) for attempt in (FIRST, SECOND))

    def lacks(self, attempt: Attempt, question: str) -> bool:
        """Whether this way of asking is still to be tried; a failure is tried again."""
        entry = self._entries.get(self._key(attempt, question))
        if entry is not None and entry.is_answer:
            return False
        return attempt is FIRST or self._needs_second(question)

    def decide(self, question: str) -> Decision:
        """The first accepted answer, else the original with the first answer's verdict."""
        if is_too_long(question):
            return Decision(
                question, Verdict("kept_original", f"too long to ask: {len(question)} characters"), FIRST, {}
            )
        first = self._decision(FIRST, question)
        if first.verdict.outcome == "accepted" or self._key(SECOND, question) not in self._entries:
            return first
        second = self._decision(SECOND, question)
        return second if second.verdict.outcome == "accepted" else first

    def failure(self, question: str) -> str:
        """Why a question got no answer, "" if it got one."""
        return self._decision(FIRST, question).answer.get("error", "")

    def _needs_second(self, question: str) -> bool:
        """Whether the first answer is there and was not accepted."""
        if not self._second_attempt:
            return False
        key = self._key(FIRST, question)
        entry = self._entries.get(key)
        if entry is None or not entry.is_answer:
            return False
        if entry.is_accepted is None:
            outcome = verdict_on(question, self._row(entry)).outcome
            entry = entry._replace(is_accepted=outcome == "accepted")
            self._entries[key] = entry
        return not entry.is_accepted

    def _decision(self, attempt: Attempt, question: str) -> Decision:
        entry = self._entries.get(self._key(attempt, question))
        if entry is None:
            raise KeyError(f"question {question[:40]!r} was not asked")
        row = self._row(entry)
        is_judged = row.get("guards") == guards_version()
        verdict = Verdict(row["verdict"], row["reason"]) if is_judged else verdict_on(question, row)
        return Decision(tidy(row["answer"]) if verdict.outcome == "accepted" else question, verdict, attempt, row)

    def _index(self) -> None:
        """Read what was saved; a line that is no saved answer is passed over, and its question asked again."""
        offset = 0
        for line in self._read or ():
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                self._note(offset, json.loads(line))
            offset += len(line)

    def _note(self, offset: int, row: Row) -> None:
        is_answer = "error" not in row
        is_judged = row.get("guards") == guards_version()
        self._entries[bytes.fromhex(row["key"])] = Entry(
            offset, is_answer, row["verdict"] == "accepted" if is_judged else None
        )
        self.totals["answers"] += is_answer
        self.totals["requests"] += row["tries"]
        self.totals["prompt_tokens"] += row["prompt_tokens"]
        self.totals["completion_tokens"] += row["completion_tokens"]
        self.cost_usd += row["cost_usd"] or 0.0
        self.answer_s += row.get("seconds", 0.0)

    def _row(self, entry: Entry) -> dict[str, Any]:
        if self._read is None:
            self._read = self._path.open("rb")
        self._read.seek(entry.offset)
        return json.loads(self._read.readline())

    def _key(self, attempt: Attempt, question: str) -> bytes:
        """Identity of a request: prompt, model, sampling and question."""
        identity = repr((attempt.prompt_hash, self._settings, question)).encode()
        return hashlib.blake2b(identity, digest_size=16).digest()


def take_lock(descriptor: int, path: Path) -> None:
    """Keep other processes out for as long as the file is open: two would pay for the same questions.

    Raises:
        CurioError: another process is in.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CurioError(f"another process is writing {path}", "Wait for it to end, or use another run.name.") from None


def verdict_on(question: str, row: Row) -> Verdict:
    """The verdict on a saved answer or failure."""
    if "error" in row:
        return Verdict("kept_original", f"no answer: {row['error']}")
    if row["truncated"]:
        return Verdict("kept_original", "truncated")
    return judge(question, row["answer"])


def digest(question: str) -> bytes:
    """Identity of a question in little memory."""
    return hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=16).digest()
