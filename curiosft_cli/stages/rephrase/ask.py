"""Ask a chat endpoint for what a log of rewrites lacks, within a budget."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict

from curiosft_cli.data.files import Row
from curiosft_cli.data.prompts import rephrase_message
from curiosft_cli.engine.endpoint.budget import Budget, OutOfBudget, price_of
from curiosft_cli.engine.endpoint.chat import ChatClient
from curiosft_cli.engine.endpoint.client import Endpoint
from curiosft_cli.engine.endpoint.concurrency import in_parallel
from curiosft_cli.engine.endpoint.outcomes import RequestFailed
from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.sections import Rephrase
from curiosft_cli.stages.rephrase.answer_log import FIRST, SECOND, Attempt, RewriteLog
from curiosft_cli.stages.rephrase.checks import longest_rewrite

Progress = Callable[[int, int, str], None]


async def ask_all(
    settings: Rephrase,
    model: str,
    base_url: str,
    questions: Iterator[str],
    total: int,
    log: RewriteLog,
    progress: Progress,
) -> tuple[Counter[str], OutOfBudget | None]:
    """Ask each question, save and judge each answer as it comes, ask once more where it was not accepted.

    Args:
        settings: of the endpoint, the sampling and the budget.
        model: its name at the endpoint.
        base_url: the endpoint.
        questions: different questions; taken one by one.
        total: how many they are.
        log: where answers go.
        progress: called with what is done, the total, and the live line.

    Returns:
        The faults by kind, and what ended it early: requests in flight still come in and are saved.

    Raises:
        CurioError: exit code 3 when the endpoint refuses, is down, or answered no question at all.
    """
    live = Live(total, progress)
    stop: OutOfBudget | None = None
    failure = ""

    def affordable() -> Iterator[str]:
        for question in questions:
            if stop:
                return
            yield question

    async with open_client(settings, model, base_url, log) as client:

        async def one(question: str) -> None:
            nonlocal stop, failure
            try:
                for attempt in (FIRST, SECOND):
                    if log.lacks(attempt, question):
                        log.save(attempt, question, await ask(client, attempt, question))
            except OutOfBudget as error:
                stop = error
                return
            live.show(client)
            failure = "" if client.answered else log.failure(question)

        await in_parallel(one, affordable(), min(settings.concurrency, total))
    if not client.answered and not stop:
        raise CurioError(
            f"{base_url} answered none of {total} questions: {failure}",
            "Check rephrase.model and rephrase.max_completion_length.",
            MISSING,
        )
    return client.faults, stop


def open_client(settings: Rephrase, model: str, base_url: str, log: RewriteLog) -> ChatClient:
    """The client of these settings; what earlier runs spent counts."""
    budget = Budget(
        price_of(settings),
        usd=settings.budget_usd,
        requests=settings.max_requests,
        spent_usd=log.cost_usd,
        sent=log.totals["requests"],
    )
    endpoint = Endpoint(
        base_url, model, settings.api_key_env, settings.concurrency, settings.timeout_s, settings.max_attempts
    )
    return ChatClient(
        endpoint,
        temperature=settings.temperature,
        max_tokens=settings.max_completion_length,
        answered=log.totals["answers"],
        budget=budget,
    )


async def ask(client: ChatClient, attempt: Attempt, question: str) -> Row:
    """One answer, or why there is none, as a row of the log."""
    try:
        answer = await client.ask(rephrase_message(question) + attempt.addition, longest_rewrite(question))
    except RequestFailed as failure:
        cost = client.budget.cost(failure.spent)
        return {"error": str(failure), **failure.spent._asdict(), "cost_usd": cost}
    row = asdict(answer)
    cost = client.budget.cost(answer.spent)
    return {"answer": row.pop("text"), **row, "cost_usd": cost}


class Live:
    """The live line: how many a second, what it cost so far, how long it will take."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress = total, progress
        self._started = time.monotonic()
        self._done = 0

    def show(self, client: ChatClient) -> None:
        """Count one question."""
        self._done += 1
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        minutes, seconds = divmod(round((self._total - self._done) / rate), 60)
        faults = f", {client.faults.total()} faults" if client.faults else ""
        line = f"rephrase: {rate:.1f}/s, ${client.budget.spent_usd:.4f}, {minutes}:{seconds:02d} left{faults}"
        self._progress(self._done, self._total, line)
