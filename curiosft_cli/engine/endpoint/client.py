"""The HTTP client of all endpoints: retries, back-off, concurrency, budget, and a key that no message shows.

A fault that may pass (408, 409, 429, 5xx, a dropped connection, silence, an empty response) is tried again with
exponential back-off. A request that the endpoint refuses (400, 413, 422) fails alone. A refused key or an unknown model
(401 to 404), or an endpoint that never responded, stops the run.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from curiosft_cli.engine.endpoint.budget import Budget
from curiosft_cli.engine.endpoint.concurrency import Gate
from curiosft_cli.engine.endpoint.masking import KeyMask
from curiosft_cli.engine.endpoint.outcomes import Fault, Reply, RequestFailed, Spent, spent_on
from curiosft_cli.engine.endpoint.transport import Refused, Wire, read_key, retry_after_s
from curiosft_cli.run.errors import MISSING, CurioError

T = TypeVar("T")

STOPS = frozenset({401, 402, 403, 404})
PASSING = frozenset({408, 409, 425, 429})
OVERLOAD = frozenset({429, 503, 529})
SERVER_ERRORS = 500
NO_QUOTA = "insufficient_quota"


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served, and how patient the client is.

    Attributes:
        base_url: for example http://127.0.0.1:8000/v1, without credentials.
        model: the model's name there.
        api_key_env: environment variable with the key; a loopback address needs none.
        concurrency: requests in flight at most; overload lowers the number for a while.
        timeout_s: longest wait for one response, in seconds.
        max_attempts: tries of one request.
        backoff_s: first wait before a new try, in seconds; doubled every time.
        longest_backoff_s: bound of that wait, in seconds.
        private: a server of one's own network: it needs no key, and no proxy stands before it.
        key: the key itself, for a server that this process started; it is not shown.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 64
    timeout_s: float = 1800.0
    max_attempts: int = 6
    backoff_s: float = 1.0
    longest_backoff_s: float = 60.0
    private: bool = False
    key: str | None = field(default=None, repr=False)


class EndpointClient:
    """Sends requests to one endpoint; use it as an asynchronous context. It may be entered again after its end.

    Args:
        endpoint: see above.
        answered: requests that this endpoint has answered in earlier runs.
        budget: what may be spent; None counts only.
        outage: requests given up in a row that stop the run.
        advice: what to do when the run stops.

    Attributes:
        answered: requests answered so far.
        faults: their number by kind.

    Raises:
        CurioError: the address is not one (exit code 2), or the key is missing (exit code 3).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        answered: int = 0,
        budget: Budget | None = None,
        outage: int = 3,
        advice: str | None = None,
    ) -> None:
        self.endpoint, self._url = endpoint, endpoint.base_url.rstrip("/")
        self._secret = endpoint.key or read_key(endpoint.base_url, endpoint.api_key_env, required=not endpoint.private)
        self._mask = KeyMask(self._secret)
        self._gate = Gate(endpoint.concurrency)
        self._outage, self._given_up_in_row, self._reached = outage, 0, False
        check = f"Check the address, the model '{endpoint.model}' and {endpoint.api_key_env}"
        self._advice = advice or f"{check}; finished answers are kept."
        self.budget = budget or Budget()
        self.answered = answered
        self.faults: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._wire = Wire(self._url, self._secret, self.endpoint.concurrency, direct=self.endpoint.private)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.close()

    async def send(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], T],
        characters: tuple[int, int] = (0, 0),
    ) -> Reply[T]:
        """Send one request, as often as it takes.

        Args:
            path: after the base URL.
            body: sent as JSON with POST; None is a GET.
            read: takes what is needed out of the response's JSON; it may raise `Fault` or `RequestFailed`.
            characters: length of the prompt, and expected length of the answer, for the budget.

        Raises:
            RequestFailed: this request gets no answer.
            OutOfBudget: it is not sent.
            CurioError: exit code 3 when the endpoint refuses everybody or is down.
        """
        spent, counted = Spent(), 0
        while True:
            answered, counted = self.answered, counted + 1
            try:
                reply = await self._try(path, body, read, characters)
            except RequestFailed as failure:
                failure.spent = failure.spent.plus(spent)
                raise
            except Fault as fault:
                self.faults[fault.kind] += 1
                spent = spent.plus(fault.spent)
                if fault.unreachable and not self._reached:
                    raise self.stopped(f"does not answer: {self._redacted(str(fault))}") from None
                if fault.overload and self.answered > answered:
                    counted -= 1  # the others get through: this one only waits for its turn
                if counted >= self.endpoint.max_attempts:
                    raise self._gave_up(fault, spent, others=self.answered > answered) from None
                await asyncio.sleep(self._delay_s(counted, fault))
                continue
            self.answered, self._given_up_in_row = self.answered + 1, 0
            return reply._replace(spent=reply.spent.plus(spent))

    async def require(self, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], T]) -> T:
        """As `send`, where the run cannot do without the response.

        Raises:
            CurioError: exit code 3 without one.
        """
        try:
            return (await self.send(path, body, read)).value
        except RequestFailed as failure:
            raise self.stopped(f"{'keeps failing' if failure.may_pass else 'refuses'} ({failure})") from None

    def stopped(self, what: str) -> CurioError:
        """The error that ends the run."""
        return CurioError(f"{self._url} {what}", self._advice, MISSING)

    async def _try(
        self, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], T], characters: tuple[int, int]
    ) -> Reply[T]:
        async with self._gate:
            reserved, spent = self.budget.reserve(*characters), Spent(tries=1)
            started = time.monotonic()
            try:
                response = await self._exchange(path, body)
                spent = spent_on(response)
                self._gate.grow()
                return Reply(read(response), spent, time.monotonic() - started)
            except (Fault, RequestFailed) as error:
                error.spent = spent
                if isinstance(error, Fault) and error.overload:
                    self._gate.shrink(started)
                    self._gate.close_for(error.retry_after_s)
                raise
            finally:
                self.budget.settle(reserved, spent)

    async def _exchange(self, path: str, body: Mapping[str, Any] | None) -> object:
        """The JSON of one response; None where it is empty."""
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                content = await self._wire.send(path, body)
        except TimeoutError:
            raise Fault("timeout", f"no answer in {self.endpoint.timeout_s:g} s") from None
        except UnicodeEncodeError:
            raise RequestFailed("it holds half characters, which cannot be sent") from None
        except Refused as error:
            self._reached = True
            raise self._meaning(error) from None
        self._reached = True
        try:
            return self._mask.json(json.loads(content)) if content.strip() else None
        except (ValueError, RecursionError):
            raise Fault("not JSON", "a response that is not JSON") from None

    def _meaning(self, refused: Refused) -> Exception:
        """What an error status means for this request and for the run."""
        try:
            content = json.loads(refused.content)
        except (ValueError, RecursionError):
            content = None
        error = content.get("error", content) if isinstance(content, Mapping) else content
        message, code = (error.get("message"), error.get("code")) if isinstance(error, Mapping) else (error, None)
        what = f"{refused.status}: {self._redacted(str(message or 'no reason given'))}"
        if refused.status in STOPS or code == NO_QUOTA:
            return self.stopped(f"refuses ({what})")
        if refused.status in PASSING or refused.status >= SERVER_ERRORS:
            wait_s = retry_after_s(refused.retry_after, time.time())
            return Fault(str(refused.status), what, retry_after_s=wait_s, overload=refused.status in OVERLOAD)
        return RequestFailed(what)

    def _gave_up(self, fault: Fault, spent: Spent, *, others: bool) -> Exception:
        """Whether the trouble of a request without further tries is its own or the endpoint's."""
        if not fault.alive:
            self._given_up_in_row += 1
            if self._given_up_in_row >= self._outage or (fault.unreachable and not others):
                return self.stopped(f"keeps failing ({self._redacted(str(fault))})")
        return RequestFailed(f"gave up after {spent.tries} tries: {self._redacted(str(fault))}", spent, may_pass=True)

    def _delay_s(self, tries: int, fault: Fault) -> float:
        """Exponential back-off with jitter, in seconds; never less than the endpoint demands."""
        bound = min(self.endpoint.longest_backoff_s, self.endpoint.backoff_s * 2.0 ** (tries - 1))
        return fault.retry_after_s + bound * random.uniform(0.5, 1.0)

    def _redacted(self, text: str, longest: int = 300) -> str:
        """One line of an endpoint's message, without the key."""
        return self._mask.text(" ".join(text.split()))[:longest]
