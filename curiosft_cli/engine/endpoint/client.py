"""Ask an OpenAI-compatible endpoint many questions at once, and lose none to its bad days.

A fault of the moment (408, 409, 429, 5xx, a dropped connection, silence, an empty answer) is tried again with
exponential back-off; an answer cut at its limit is asked again with a larger one; a question that the endpoint refuses
(400, 413, 422) concerns that question alone; a refused key or an unknown model (401 to 404) stops everything.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from curiosft_cli.engine.endpoint.budget import Budget
from curiosft_cli.engine.endpoint.concurrency import Gate
from curiosft_cli.engine.endpoint.outcomes import Answer, Fault, QuestionFailed, Spent, spent_on
from curiosft_cli.engine.endpoint.transport import Refused, Wire, read_key, retry_after_s
from curiosft_cli.run.errors import MISSING, CurioError

T = TypeVar("T")

STOPS = frozenset({401, 402, 403, 404})
PASSING = frozenset({408, 409, 425, 429})
OVERLOAD = frozenset({429, 503, 529})
NO_QUOTA = "insufficient_quota"


class ChatClient:
    """A model behind an OpenAI-compatible endpoint; use it as an asynchronous context.

    Args:
        base_url: the endpoint, without credentials.
        model: the model's name there.
        api_key_env: environment variable with the key; only a loopback address may do without.
        concurrency: requests in flight at most; overload lowers the number for a while.
        temperature: sampling temperature.
        max_tokens: longest answer, in tokens.
        timeout_s: longest wait for one request, in seconds.
        max_attempts: tries of one question.
        answered: questions that this endpoint has answered before.
        budget: what may be spent; none counts only.
        enlargements: how often a cut answer is asked again with twice the limit.
        backoff_s: first wait before a new try, in seconds; doubled every time.
        longest_backoff_s: bound of that wait, in seconds.
        hopeless: refusals, without any answer, that stop the run.
        outage: questions given up in a row that stop the run.
        whole: keep all that the model wrote: its reasoning in think tags, where the endpoint returns that apart, and
            an answer that is empty.

    Raises:
        CurioError: the address is not one (exit code 2), or the key is missing (exit code 3).
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str,
        *,
        concurrency: int = 64,
        temperature: float = 0.0,
        max_tokens: int = 2048,
        timeout_s: float = 120.0,
        max_attempts: int = 6,
        answered: int = 0,
        budget: Budget | None = None,
        enlargements: int = 1,
        backoff_s: float = 1.0,
        longest_backoff_s: float = 60.0,
        hopeless: int = 20,
        outage: int = 3,
        whole: bool = False,
    ) -> None:
        self._url, self._model, self._variable = base_url.rstrip("/"), model, api_key_env
        self._secret = read_key(base_url, api_key_env)
        self._temperature, self._max_tokens, self._enlargements = temperature, max_tokens, enlargements
        self._concurrency, self._timeout_s, self._max_attempts = concurrency, timeout_s, max_attempts
        self._backoff_s, self._longest_backoff_s = backoff_s, longest_backoff_s
        self._hopeless, self._outage, self._whole = hopeless, outage, whole
        self._gate = Gate(concurrency)
        self.budget = budget or Budget()
        self._given_up_in_row = 0
        self.answered = answered
        self.refused = 0
        self.faults: Counter[str] = Counter()

    async def __aenter__(self) -> ChatClient:
        self._wire = Wire(self._url, self._secret, self._concurrency)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.close()

    async def ask(
        self, prompt: str | Sequence[Mapping[str, str]], longest: int | None = None, **sampling: float
    ) -> Answer:
        """The answer to one user message.

        Args:
            prompt: the message, or the messages of a chat.
            longest: characters beyond which an answer is of no use; one that is cut there is not asked again.
            sampling: what this request says beside temperature and limit: `top_p`, `seed`.

        Raises:
            QuestionFailed: this question gets no answer.
            OutOfBudget: it may not be asked any more.
            CurioError: exit code 3 when the endpoint refuses everybody or is down.
        """
        limit, largest = self._max_tokens, self._max_tokens << self._enlargements
        talk = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        request = {"model": self._model, "messages": talk, "temperature": self._temperature, **sampling}
        cut: Answer | None = None
        spent = Spent()
        tries = counted = 0
        while True:
            answered = self.answered
            tries, counted = tries + 1, counted + 1
            try:
                answer = await self._try({**request, "max_tokens": limit}, longest or 0)
            except QuestionFailed as failure:
                if cut:
                    return cut  # the larger limit does not fit into the model's context
                self.refused += 1
                if self.refused >= self._hopeless and not self.answered:
                    raise self._stopped(f"refuses every question, {self.refused} so far") from None
                raise QuestionFailed(str(failure), tries=tries, spent=spent.plus(failure.spent)) from None
            except Fault as fault:
                self.faults[fault.kind] += 1
                spent = spent.plus(fault.spent)
                if fault.overload and self.answered > answered:
                    counted -= 1  # the others get through: this one is only waiting its turn
                if counted >= self._max_attempts:
                    raise self._gave_up(fault, tries, spent, others=self.answered > answered) from None
                await asyncio.sleep(self._delay_s(counted, fault))
                continue
            self.answered, self._given_up_in_row = self.answered + 1, 0
            spent = spent.plus(Spent(answer.prompt_tokens, answer.completion_tokens))
            answer = replace(answer, tries=tries, **spent._asdict())
            if not answer.truncated or limit >= largest or (longest is not None and len(answer.text) > longest):
                return answer
            self.faults["length"] += 1
            cut, limit = answer, limit * 2

    async def _try(self, request: Mapping[str, Any], expected_characters: int) -> Answer:
        """One request."""
        characters = sum(len(message["content"]) for message in request["messages"])
        async with self._gate:
            reserved, spent = self.budget.reserve(characters, expected_characters), Spent()
            started = time.monotonic()
            try:
                response = await self._send(request)
                spent = spent_on(response)
            except Fault as fault:
                if fault.overload:
                    self._gate.shrink(started)
                    self._gate.close_for(fault.retry_after_s)
                raise
            finally:
                self.budget.settle(reserved, spent)
        self._gate.grow()
        return self._read(response, spent, time.monotonic() - started)

    def _read(self, response: Any, spent: Spent, seconds: float) -> Answer:
        """The answer in a response's JSON."""
        choices = response.get("choices") if isinstance(response, Mapping) else None
        if not choices:
            raise Fault("empty", "an answer without a choice", alive=True, spent=spent)
        # Half of a surrogate pair, where an emoji was cut, fits into no file.
        message = choices[0].get("message") or {}
        text = (message.get("content") or "").encode("utf-8", "replace").decode()
        reason = choices[0].get("finish_reason")
        if self._whole:
            text = with_reasoning(text, message)
        if not text.strip() and reason != "length":
            if reason == "content_filter":
                raise QuestionFailed("the endpoint's content filter", spent=spent)
            if not self._whole:
                raise Fault("empty", "an empty answer", alive=True, spent=spent)
        return Answer(text, reason == "length", *spent, 1, seconds, str(response.get("model") or ""))

    async def _send(self, request: Mapping[str, Any]) -> object:
        """One request's JSON."""
        try:
            async with asyncio.timeout(self._timeout_s):
                content = await self._wire.post("/chat/completions", request)
        except TimeoutError:
            raise Fault("timeout", f"no answer in {self._timeout_s:g} s") from None
        except UnicodeEncodeError:
            raise QuestionFailed("it holds half characters, which cannot be sent") from None
        except Refused as error:
            raise self._meaning(error.status, error.retry_after, _parsed(error.content)) from None
        if (said := _parsed(content)) is None:
            raise Fault("not JSON", "an answer that is not JSON")
        return said

    def _meaning(self, status: int, retry_after: str | None, said: object) -> Exception:
        """What an error means for this question and for the run."""
        error = said.get("error", said) if isinstance(said, Mapping) else said
        message, code = (error.get("message"), error.get("code")) if isinstance(error, Mapping) else (error, None)
        what = f"{status}: {self._redacted(str(message or 'no reason given'))}"
        if status in STOPS or code == NO_QUOTA:
            return self._stopped(f"answered {what}")
        if status in PASSING or status >= 500:
            wait_s = retry_after_s(retry_after, time.time())
            return Fault(str(status), what, retry_after_s=wait_s, overload=status in OVERLOAD)
        return QuestionFailed(what)

    def _gave_up(self, fault: Fault, tries: int, spent: Spent, *, others: bool) -> Exception:
        """Whether a question that ran out of tries is alone with its trouble."""
        if not fault.alive:
            self._given_up_in_row += 1
            if self._given_up_in_row >= self._outage or (fault.unreachable and not others):
                return self._stopped(f"keeps failing ({self._redacted(str(fault))})")
        message = f"gave up after {tries} tries: {self._redacted(str(fault))}"
        return QuestionFailed(message, tries=tries, spent=spent, may_pass=True)

    def _delay_s(self, tries: int, fault: Fault) -> float:
        """Exponential back-off with jitter, in seconds; never less than the endpoint asks for."""
        bound = min(self._longest_backoff_s, self._backoff_s * 2.0 ** (tries - 1))
        return fault.retry_after_s + bound * random.uniform(0.5, 1.0)

    def _stopped(self, what: str) -> CurioError:
        advice = f"Check the address, the model '{self._model}' and {self._variable}; finished answers are kept."
        return CurioError(f"{self._url} {what}", advice, MISSING)

    def _redacted(self, text: str, longest: int = 300) -> str:
        """One line of what an endpoint said, without the key if it repeats it."""
        line = " ".join(text.split())[:longest]
        return line.replace(self._secret, "***") if self._secret else line


def with_reasoning(text: str, message: Mapping[str, Any]) -> str:
    """The text with the reasoning that an endpoint took out of it, between the tags that it took away."""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(reasoning, str) or not reasoning.strip():
        return text
    return f"<think>\n{reasoning.strip()}\n</think>\n{text}" if text else f"<think>\n{reasoning.strip()}"


def _parsed(content: bytes) -> object:
    """The value of some JSON, None where it is none."""
    try:
        return json.loads(content)
    except ValueError:
        return None


async def in_parallel(work: Callable[[T], Awaitable[None]], items: Iterable[T], workers: int) -> None:
    """Do `work` on every item, `workers` at a time; the first `CurioError` ends all and is raised."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
    except ExceptionGroup as errors:
        known = errors.subgroup(CurioError)
        raise (known.exceptions[0] if known else errors) from None
