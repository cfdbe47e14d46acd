"""The saved answers of a clean-up, and what they decide: a restart asks only for what is not here."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from curiosft_cli.data.files import FileRow
from curiosft_cli.data.prompts import REPHRASE_PROMPT, rephrase_message
from curiosft_cli.run.files import JsonLines
from curiosft_cli.stages.rephrase.judge.rules import (
    Judgement,
    is_too_long,
    judge_by_rules,
    judge_version,
    longest_rewrite,
    tidy,
)
from curiosft_cli.stages.rephrase.judge.verify import LONGEST_ANSWER, PROMPT_HASH, read_verdict, verify_message

STRICTER = """

Write the problem statement alone. Copy its words: every number, formula, unit, name and condition stays exactly as it is given. Add nothing: no heading, no comment, no solution, no answer."""  # noqa: E501
FAILED = "failed"
PERSON = "person"


@dataclass(frozen=True)
class Attempt:
    """One way of asking for a rewrite.

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
class Request:
    """One question to a model.

    Attributes:
        key: identity of prompt, model, sampling and texts.
        prompt_hash: of the prompt without the texts.
        to: who is asked: the model that rewrites, or the verifier.
        message: the user message.
        longest: characters that a useful answer has at most.
        post: the post it is about.
        again: an answer to it was refused, and `ask_again` dropped that one.
    """

    key: bytes
    prompt_hash: str
    to: Literal["rewriter", "verifier"]
    message: str
    longest: int
    post: str
    again: bool


@dataclass(frozen=True)
class Decision:
    """What becomes of one question.

    Attributes:
        question: the cleaned one, or the original.
        judgement: why.
        attempt: the way of asking that decided.
        answer: the saved answer that decided; empty when the question was not asked.
    """

    question: str
    judgement: Judgement
    attempt: Attempt
    answer: FileRow

    @property
    def verdict(self) -> str:
        """accepted; kept_original: the answer is not used; rejected: the post is no problem either."""
        if self.judgement.outcome == "accepted":
            return "accepted"
        return "rejected" if self.judgement.no_problem else "kept_original"


class Entry(NamedTuple):
    """Where a saved line is, what it says, and which post and rewrite a verifier would compare.

    The outcome is None where the rules changed since the line was written.
    """

    offset: int
    outcome: str | None
    pair: bytes


class RewriteLog:
    """An append-only file of answers, failures and decisions by hand; of two lines with one key the later one counts.

    Memory holds an index; texts are read when they are needed.

    Args:
        path: the JSONL file.
        model: the name of the model that rewrites.
        sampling: temperature and the longest answer, in tokens.
        second_attempt: a refused first answer is asked again.
        verifier: the name of the model that judges what no rule decides; None leaves that undecided.
        read_only: nothing is created or saved. Who saves holds the lock of the folder: two would pay for the same
            questions.
    """

    def __init__(
        self,
        path: Path,
        model: str,
        sampling: tuple[float, int],
        *,
        second_attempt: bool,
        verifier: str | None = None,
        read_only: bool = False,
    ) -> None:
        self._rewriter = (model, *sampling)
        self._verifier = (verifier, *sampling) if verifier else None
        self._attempts = (FIRST, SECOND) if second_attempt else (FIRST,)
        self._path = path
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = JsonLines(path)
        self._read = path.open("rb") if path.is_file() else None
        self._entries: dict[bytes, Entry] = {}
        self._again: set[bytes] = set()
        self._by_hand: dict[bytes, int] = {}
        self.totals = {"answers": 0, "requests": 0, "prompt_tokens": 0, "completion_tokens": 0}
        self.cost_usd = 0.0
        self.answer_s = 0.0
        self._index()

    def __enter__(self) -> RewriteLog:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as files:  # a full disk ends in an error at one of them: the others are closed still
            for file in (self._read, getattr(self, "_file", None)):
                if file is not None:
                    files.callback(file.close)

    def save(self, request: Request, row: FileRow) -> None:
        """Judge an answer (`answer`, `truncated`, ...) or a failure (`error`), append it and flush."""
        row = {"key": request.key.hex(), "to": request.to, "prompt_hash": request.prompt_hash, "time": now(), **row}
        if request.to == "rewriter" and "error" not in row:
            judgement = by_rules(request.post, row)
            pair = pair_digest(request.post, tidy(row["answer"]))
            row |= {**asdict(judgement), "pair": pair.hex(), "judge": judge_version()}
        self._append(row)

    def ask_again(self, posts: Iterable[str]) -> int:
        """Drop every answer that was refused or left undecided, in one line; returns the number of questions."""
        keys = [self._not_used(post) for post in posts if digest(post) not in self._by_hand]
        self._append({"again": [key.hex() for of_post in keys for key in of_post]})
        return sum(map(bool, keys))

    def save_by_hand(self, post: str, verdict: str, question: str) -> None:
        """Save what a person decided about a post; it counts more than any answer, and the last decision counts."""
        self._append({"post": digest(post).hex(), "verdict": verdict, "question": question, "time": now()})

    def wants(self, post: str) -> bool:
        """Whether anything is still to be asked about this post."""
        return self.next_request(post) is not None

    def next_request(self, post: str) -> Request | None:
        """What is still to be asked about this post: a rewrite, a verdict on it, a second rewrite.

        A failure is asked again.
        """
        for attempt in () if is_too_long(post) or digest(post) in self._by_hand else self._attempts:
            key = self._rewrite_key(attempt, post)
            entry = self._entries.get(key)
            if entry is None or entry.outcome == FAILED:
                message = rephrase_message(post) + attempt.addition
                longest = longest_rewrite(post)
                return Request(key, attempt.prompt_hash, "rewriter", message, longest, post, key in self._again)
            outcome, pair = self._judged(key, entry, post)
            if outcome == "undecided" and self._verifier:
                checked = self._entries.get(self._verdict_key(pair))
                if checked is None or checked.outcome == FAILED:
                    row = self._row(entry)
                    judgement = saved_judgement(row) or by_rules(post, row)
                    return self.verdict_request(post, tidy(row["answer"]), judgement.differences)
                outcome = str(checked.outcome)
            if outcome != "refused":
                return None
        return None

    def verdict_request(self, post: str, rewrite: str, look_at: Sequence[str]) -> Request | None:
        """The question to the verifier about this pair and these differences, None if it was answered."""
        key = self._verdict_key(pair_digest(post, rewrite))
        known = self._entries.get(key)
        if known is not None and known.outcome != FAILED:
            return None
        message = verify_message(post, rewrite, look_at)
        return Request(key, PROMPT_HASH, "verifier", message, LONGEST_ANSWER, post, key in self._again)

    def verdict(self, post: str, rewrite: str, judgement: Judgement) -> Judgement:
        """What the verifier said of this pair; the rules' judgement where it was not asked."""
        entry = self._entries.get(self._verdict_key(pair_digest(post, rewrite))) if self._verifier else None
        if entry is None:
            return judgement
        row = self._row(entry)
        return Judgement("undecided", f"no verdict: {row['error']}") if "error" in row else read_verdict(row["answer"])

    def decide(self, post: str) -> Decision:
        """What a person decided, else what the answers decide."""
        offset = self._by_hand.get(digest(post))
        if offset is None:
            return self._by_answers(post)
        by_hand = self._line(offset)
        outcome = "accepted" if by_hand["verdict"] == "accepted" else "refused"
        judgement = Judgement(outcome, "by hand", PERSON, no_problem=by_hand["verdict"] == "rejected")
        with suppress(KeyError):
            known = self._by_answers(post)
            answer = {**known.answer, "time": by_hand["time"]}
            return Decision(by_hand["question"] or post, judgement, known.attempt, answer)
        return Decision(by_hand["question"] or post, judgement, FIRST, {"time": by_hand["time"]})

    def _by_answers(self, post: str) -> Decision:
        """The first accepted answer, else the original with the first answer's judgement."""
        if is_too_long(post):
            reason = f"too long to ask: {len(post)} characters"
            return Decision(post, Judgement("refused", reason, "rule too long"), FIRST, {})
        first: Decision | None = None
        for attempt in self._attempts:
            entry = self._entries.get(self._rewrite_key(attempt, post))
            if entry is None:
                break
            row = self._row(entry)
            judgement = saved_judgement(row) or by_rules(post, row)
            if judgement.outcome == "undecided":
                judgement = self.verdict(post, tidy(row["answer"]), judgement)
            if judgement.outcome == "accepted":
                return Decision(tidy(row["answer"]), judgement, attempt, row)
            first = first or Decision(post, judgement, attempt, row)
        if first is None:
            raise KeyError(f"question {post[:40]!r} was not asked")
        return first

    def _not_used(self, post: str) -> list[bytes]:
        """Keys of the answers that keep this post as it is: rewrites, or the verdicts that nobody could read."""
        keys = []
        for attempt in () if is_too_long(post) else self._attempts:
            key = self._rewrite_key(attempt, post)
            if (entry := self._entries.get(key)) is None:
                continue
            outcome, pair = self._judged(key, entry, post)
            if outcome == "undecided" and (verdict := self._entries.get(self._verdict_key(pair))):
                outcome = str(verdict.outcome)
                key = self._verdict_key(pair) if outcome in ("undecided", FAILED) else key
            if outcome == "accepted":
                return []
            keys.append(key)
        return keys

    def _append(self, row: FileRow) -> None:
        offset = self._path.stat().st_size
        self._file.append(row)
        self._note(offset, row)

    def _judged(self, key: bytes, entry: Entry, post: str) -> tuple[str, bytes]:
        """What the rules say of a saved rewrite, made again if they changed, and the digest of the pair."""
        if entry.outcome is None:
            row = self._row(entry)
            pair = pair_digest(post, tidy(row["answer"]))
            entry = self._entries[key] = Entry(entry.offset, by_rules(post, row).outcome, pair)
        return str(entry.outcome), entry.pair

    def _index(self) -> None:
        """Read what was saved; a line that is no saved answer is passed over, and its question asked again."""
        offset = 0
        for line in self._read or ():
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                self._note(offset, json.loads(line))
            offset += len(line)

    def _note(self, offset: int, row: FileRow) -> None:
        if "again" in row:
            keys = {bytes.fromhex(key) for key in row["again"]}
            self._again |= keys
            for key in keys:
                self._entries.pop(key, None)
            return
        if "post" in row:
            self._by_hand[bytes.fromhex(row["post"])] = offset
            return
        key, outcome, pair = bytes.fromhex(row["key"]), None, b""
        if "error" in row:
            outcome = FAILED
        elif row.get("to") == "verifier":
            outcome = read_verdict(row["answer"]).outcome
        elif row.get("judge") == judge_version():
            outcome, pair = row["outcome"], bytes.fromhex(row["pair"])
        self._entries[key] = Entry(offset, outcome, pair)
        self.totals["answers"] += "error" not in row
        self.totals["requests"] += row["tries"]
        self.totals["prompt_tokens"] += row["prompt_tokens"]
        self.totals["completion_tokens"] += row["completion_tokens"]
        self.cost_usd += row["cost_usd"] or 0.0
        self.answer_s += row.get("seconds", 0.0)

    def _row(self, entry: Entry) -> dict[str, Any]:
        return self._line(entry.offset)

    def _line(self, offset: int) -> dict[str, Any]:
        if self._read is None:
            self._read = self._path.open("rb")
        self._read.seek(offset)
        return json.loads(self._read.readline())

    def _rewrite_key(self, attempt: Attempt, post: str) -> bytes:
        """Identity of a request for a rewrite: prompt, model, sampling and question."""
        return hashlib.blake2b(repr((attempt.prompt_hash, self._rewriter, post)).encode(), digest_size=16).digest()

    def _verdict_key(self, pair: bytes) -> bytes:
        """Identity of a request for a verdict: prompt, model, sampling, post and rewrite."""
        return hashlib.blake2b(repr((PROMPT_HASH, self._verifier, pair)).encode(), digest_size=16).digest()


def now() -> str:
    """The time for a line of the log."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def saved_judgement(row: FileRow) -> Judgement | None:
    """What these rules said when the row was saved; None where they changed since."""
    if row.get("judge") != judge_version():
        return None
    return Judgement(
        row["outcome"], row["reason"], row["decided_by"], tuple(row["differences"]), no_problem=row["no_problem"]
    )


def by_rules(post: str, row: FileRow) -> Judgement:
    """What the rules say of a saved answer or failure."""
    if "error" in row:
        return Judgement("refused", f"no answer: {row['error']}", "rule no answer")
    if row["truncated"]:
        return Judgement("refused", "truncated", "rule cut")
    return judge_by_rules(post, tidy(row["answer"]))


def digest(text: str) -> bytes:
    """Identity of a text in little memory."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def pair_digest(post: str, rewrite: str) -> bytes:
    """Identity of a post and a rewrite."""
    return digest(json.dumps([post, rewrite]))
