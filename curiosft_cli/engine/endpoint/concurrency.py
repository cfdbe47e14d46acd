"""Requests at the same time: how many, and the way from asynchronous work to an ordinary iterator."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

from curiosft_cli.run.errors import CurioError

T = TypeVar("T")
V = TypeVar("V")


class Gate:
    """An asynchronous context that lets at most `limit` through at once.

    The limit is halved on overload and grows back by one for every `limit` answers (additive increase, multiplicative
    decrease).

    Args:
        most: the limit at the start, and its bound.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._shrunk_s = 0.0
        self._opens_s = 0.0
        self.limit = float(most)

    async def __aenter__(self) -> Gate:
        while (closed_s := self._opens_s - time.monotonic()) > 0 or self._inside >= int(self.limit):
            if closed_s > 0:
                await asyncio.sleep(closed_s * random.uniform(1.0, 1.1))
            else:
                turn = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                await turn
        self._inside += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        self._let_in()

    def shrink(self, started_s: float, factor: float = 0.5) -> None:
        """Lower the limit, once for all the requests that were in flight together.

        Args:
            started_s: when the refused request started, by the monotonic clock.
            factor: new limit by old limit.
        """
        if started_s >= self._shrunk_s:
            self._shrunk_s = time.monotonic()
            self.limit = max(1.0, self.limit * factor)

    def close_for(self, seconds: float) -> None:
        """Keep the gate shut for this long."""
        self._opens_s = max(self._opens_s, time.monotonic() + seconds)

    def grow(self) -> None:
        """Count one answer."""
        self.limit = min(float(self._most), self.limit + 1.0 / self.limit)
        self._let_in()

    def _let_in(self) -> None:
        free = int(self.limit) - self._inside
        while self._waiting and free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1


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


def iterate(work: Callable[[Callable[[V], None]], Awaitable[None]]) -> Iterator[V]:
    """Run asynchronous `work` and yield every value that it hands to its argument, at once.

    An error of `work` is raised after all values before it. Leaving the iterator cancels the work. The work goes on
    only while the iterator waits for its next value.
    """
    values: asyncio.Queue[tuple[V] | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(lambda value: values.put_nowait((value,)))
        finally:
            values.put_nowait(None)

    with asyncio.Runner() as runner:
        task = runner.get_loop().create_task(run())
        while (found := runner.run(values.get())) is not None:
            yield found[0]
        runner.run(asyncio.wait_for(task, None))
