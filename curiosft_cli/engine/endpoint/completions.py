"""Plain completions from endpoints that serve the checkpoint: token ids in, token ids or text out.

The prompt is exactly the one of an embedded engine, the prefilled think tag included. vLLM and SGLang return token ids.
The text of other servers is tokenised again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from curiosft_cli.engine.base import Completion, Sampling
from curiosft_cli.engine.endpoint.client import Endpoint, EndpointClient
from curiosft_cli.engine.endpoint.concurrency import in_parallel, iterate
from curiosft_cli.engine.endpoint.outcomes import Fault, first_choice
from curiosft_cli.engine.prompt_checks import fill_seeds

T = TypeVar("T")


class CompletionsSampler:
    """A `TokenSampler` over HTTP.

    Args:
        endpoint: where it is.
        encode: tokenises a text, for an endpoint that returns no token ids.

    Raises:
        CurioError: the address is not one (exit code 2), or the key is missing (exit code 3).
    """

    def __init__(self, endpoint: Endpoint, encode: Callable[[str], list[int]]) -> None:
        self._client, self._encode = EndpointClient(endpoint, outage=1), encode
        self._seeds = random.Random(0)

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """See `TokenSampler.stream`.

        Raises:
            CurioError: exit code 3 when the endpoint refuses, or keeps failing; what was yielded counts.
        """
        chosen = fill_seeds(seeds, len(prompts), self._seeds)
        model = self._client.endpoint.model
        bodies = [completion_request(model, *one, sampling) for one in zip(prompts, chosen, strict=True)]
        return complete_all([self._client], "/completions", bodies, self._read)

    def close(self) -> None:
        """Nothing is open between two streams."""

    def _read(self, response: Any) -> Completion:
        choice = first_choice(response)
        if not (token_ids := choice.get("token_ids")):
            if not isinstance(choice.get("text"), str):
                raise Fault("empty", "a completion without text", alive=True)
            token_ids = self._encode(choice["text"])
        return Completion(tuple(token_ids), (), "length" if choice.get("finish_reason") == "length" else "stop")


def completion_request(model: str, prompt: Sequence[int], seed: int, sampling: Sampling) -> dict[str, Any]:
    """The body of one request. Its last three keys are not OpenAI's; servers of open models know them."""
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed,
        "stop_token_ids": list(sampling.stop_token_ids),
        "skip_special_tokens": False,
        "return_token_ids": True,
    }


def complete_all(
    clients: Sequence[EndpointClient], path: str, bodies: Sequence[Mapping[str, Any]], read: Callable[[Any], T]
) -> Iterator[tuple[int, T]]:
    """Spread requests over endpoints; yield (index of the body, what `read` made of the response) as they finish.

    Args:
        clients: one per endpoint; they take turns.
        path: after their base URLs.
        bodies: one per request.
        read: takes what is needed out of a response's JSON.

    Raises:
        CurioError: exit code 3 when one request gets no answer.
    """

    workers = sum(client.endpoint.concurrency for client in clients)

    async def work(put: Callable[[tuple[int, T]], None]) -> None:
        async with AsyncExitStack() as stack:
            for client in clients:
                await stack.enter_async_context(client)

            async def one(index: int) -> None:
                put((index, await clients[index % len(clients)].require(path, bodies[index], read)))

            await in_parallel(one, range(len(bodies)), min(workers, len(bodies)))

    return iterate(work)
