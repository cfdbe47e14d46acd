"""Ask a chat endpoint for what a log of answers lacks, within a budget: rewrites, and verdicts on them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import takewhile
from typing import TypeVar

from curiosft_cli.data.files import FileRow
from curiosft_cli.engine.endpoint.budget import Budget, OutOfBudget, Price, price_of
from curiosft_cli.engine.endpoint.chat import ChatClient
from curiosft_cli.engine.endpoint.client import Endpoint
from curiosft_cli.engine.endpoint.concurrency import in_parallel
from curiosft_cli.engine.endpoint.outcomes import RequestFailed
from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config, Rephrase
from curiosft_cli.stages.rephrase.answer_log import Request, RewriteLog
from curiosft_cli.stages.rephrase.demonstration import DEMONSTRATION, demonstration_server

LOCAL = "local"
LOCAL_CONTEXT = 4096
T = TypeVar("T")
Progress = Callable[[int, int, str], None]


async def ask_all(
    settings: Rephrase,
    base_url: str,
    items: Iterator[T],
    total: int,
    log: RewriteLog,
    next_request: Callable[[T], Request | None],
    progress: Progress,
) -> tuple[Counter[str], OutOfBudget | None]:
    """Send the requests of each item one after the other and save each answer as it comes; many items at a time.

    Args:
        settings: of the endpoint, the sampling and the budget.
        base_url: the endpoint.
        items: posts, or pairs of a post and a rewrite; taken one by one.
        total: how many they are.
        log: where answers go.
        next_request: what is to be asked next about an item; None when nothing is. It knows the saved answers.
        progress: called with what is done, the total, and the live line.

    Returns:
        The faults by kind, and what ended it early: requests in flight still come in and are saved.

    Raises:
        CurioError: exit code 3 when the endpoint refuses, is down, or answered no question at all.
    """
    live = Live(total, progress)
    stop: OutOfBudget | None = None
    failure = ""

    budget = open_budget(settings, log)
    async with (
        open_client(settings, rewriter(settings), base_url, budget, log) as client,
        open_client(settings, verifier(settings) or rewriter(settings), base_url, budget, log) as second,
    ):

        async def one(item: T) -> None:
            nonlocal stop, failure
            sent: set[bytes] = set()
            try:
                while (request := next_request(item)) and request.key not in sent:
                    sent.add(request.key)
                    row = await ask(client if request.to == "rewriter" else second, request, settings.retry_temperature)
                    log.save(request, row)
                    failure = row.get("error", failure)
            except OutOfBudget as error:
                stop = error
                return
            live.show(client.faults + second.faults, budget.spent_usd)

        affordable = takewhile(lambda _: stop is None, items)
        await in_parallel(one, affordable, min(settings.concurrency, total))
    if not log.totals["answers"] and not stop:
        raise CurioError(
            f"{base_url} answered none of {total} questions: {failure}",
            "Check rephrase.model and rephrase.max_completion_length.",
            MISSING,
        )
    return client.faults + second.faults, stop


def rewriter(settings: Rephrase) -> str:
    """The name at the endpoint of the model that rewrites."""
    return LOCAL if settings.base_url == LOCAL else settings.model


def verifier(settings: Rephrase) -> str | None:
    """The name at the endpoint of the model that judges; None when nobody does."""
    if settings.verify == "off":
        return None
    return LOCAL if settings.base_url == LOCAL else settings.verify_model or settings.model


def dearest_price(settings: Rephrase) -> Price | None:
    """The higher one of both models' prices counts for both, so that the budget holds; None when one is not known."""
    names = (
        {settings.model, settings.verify_model or settings.model} if settings.verify == "model" else {settings.model}
    )
    prices = [price_of(settings.model_copy(update={"model": name})) for name in sorted(names)]
    known = [price for price in prices if price is not None]
    return max(known, key=lambda price: (price.output_usd, price.input_usd)) if len(known) == len(prices) else None


def open_budget(settings: Rephrase, log: RewriteLog) -> Budget:
    """What may still be spent; what earlier runs spent counts."""
    return Budget(
        dearest_price(settings),
        usd=settings.budget_usd,
        requests=settings.max_requests,
        spent_usd=log.cost_usd,
        sent=log.totals["requests"],
    )


def open_client(settings: Rephrase, model: str, base_url: str, budget: Budget, log: RewriteLog) -> ChatClient:
    """The client of these settings."""
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


async def ask(client: ChatClient, request: Request, retry_temperature: float) -> FileRow:
    """One answer, or why there is none, as a row of the log."""
    sampling = {"temperature": retry_temperature} if request.again else {}
    try:
        answer = await client.ask(request.message, request.longest, **sampling)
    except RequestFailed as failure:
        cost = client.budget.cost(failure.spent)
        return {"error": str(failure), **failure.spent._asdict(), "cost_usd": cost}
    row = asdict(answer)
    cost = client.budget.cost(answer.spent)
    return {"answer": row.pop("text"), **row, "cost_usd": cost}


@contextmanager
def endpoint(config: Config, stage: StageDir) -> Generator[str]:
    """Base URL to ask; a local server lives as long as the context."""
    if config.rephrase.base_url == DEMONSTRATION:
        with demonstration_server() as base_url:
            yield base_url
        return
    if config.rephrase.base_url != LOCAL:
        yield config.rephrase.base_url
        return
    from curiosft_cli.engine.vllm_engines.local_server import serve
    from curiosft_cli.stages.engine_spec import engine_spec
    from curiosft_cli.train.load import load_config

    context = getattr(load_config(config.model.path, config.model), "max_position_embeddings", None) or LOCAL_CONTEXT
    spec = engine_spec(config, config.model.path, min(context, LOCAL_CONTEXT))
    with serve(spec, name=LOCAL, log_file=stage.path / "server.log") as base_url:
        yield base_url


class Live:
    """The live line: how many a second, what it cost so far, how long it will take."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress = total, progress
        self._started = time.monotonic()
        self._done = 0

    def show(self, seen: Counter[str], spent_usd: float) -> None:
        """Count one question."""
        self._done += 1
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        minutes, seconds = divmod(round((self._total - self._done) / rate), 60)
        faults = f", {seen.total()} faults" if seen else ""
        line = f"rephrase: {rate:.1f}/s, ${spent_usd:.4f}, {minutes}:{seconds:02d} left{faults}"
        self._progress(self._done, self._total, line)
