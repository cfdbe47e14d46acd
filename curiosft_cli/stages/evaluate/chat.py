"""Sampling from an endpoint that takes chats only, as every provider's does: messages in, text out.

The endpoint's own template makes the prompt, so there is no prefill, and the model's tokenizer need not be here:
lengths are what the endpoint counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from curiosft_cli.engine.base import Sampling
from curiosft_cli.engine.endpoint.client import ChatClient, in_parallel
from curiosft_cli.engine.endpoint.completions import Endpoint
from curiosft_cli.engine.endpoint.outcomes import QuestionFailed
from curiosft_cli.evaluation.samples import Sample
from curiosft_cli.evaluation.summary import REFUSED
from curiosft_cli.run.errors import MISSING, CurioError

Talk = Sequence[Mapping[str, str]]
Finished = asyncio.Queue[tuple[int, Sample] | None]


@dataclass(frozen=True)
class ChatSampler:
    """A model behind a chat endpoint.

    Attributes:
        endpoint: where it is and how patiently to ask.
        answered: samples that it has given before.
    """

    endpoint: Endpoint
    answered: int = 0

    def stream(self, talks: Sequence[Talk], sampling: Sampling, seeds: Sequence[int]) -> Iterator[tuple[int, Sample]]:
        """Yield `(index of the talk, sample)` in finishing order; one sample per talk.

        What the endpoint refuses comes last, as an empty sample. An error is raised after all that could be drawn.

        Raises:
            CurioError: exit code 3 when the endpoint refuses everybody or is down, or when talks got no answer.
        """
        finished: Finished = asyncio.Queue()
        with asyncio.Runner() as runner:
            asking = runner.get_loop().create_task(self._ask_all(talks, sampling, seeds, finished))
            while (one := runner.run(finished.get())) is not None:
                yield one
            runner.run(asyncio.wait_for(asking, None))

    async def _ask_all(
        self, talks: Sequence[Talk], sampling: Sampling, seeds: Sequence[int], finished: Finished
    ) -> None:
        refused: list[tuple[int, str]] = []
        lost: list[str] = []
        try:
            async with self._client(sampling) as client:

                async def one(index: int) -> None:
                    try:
                        answer = await client.ask(talks[index], top_p=sampling.top_p, seed=seeds[index])
                    except QuestionFailed as failure:
                        if failure.may_pass:
                            lost.append(str(failure))
                        else:
                            refused.append((index, str(failure)))
                        return
                    reason = "length" if answer.truncated else "stop"
                    finished.put_nowait((index, Sample(answer.text, answer.completion_tokens, reason)))

                await in_parallel(one, range(len(talks)), min(self.endpoint.concurrency, len(talks)))
            if refused and not client.answered:
                raise CurioError(
                    f"{self.endpoint.base_url} refused all of {len(talks)} requests: {refused[0][1]}",
                    "Check eval.endpoint_model and the sampling settings; some models take no temperature or seed.",
                    MISSING,
                )
            for index, why in refused:
                finished.put_nowait((index, Sample("", 0, REFUSED, error=why)))
            if lost:
                raise CurioError(
                    f"{self.endpoint.base_url} gave no answer to {len(lost)} of {len(talks)} requests: {lost[0]}",
                    "The same command asks for what is missing.",
                    MISSING,
                )
        finally:
            finished.put_nowait(None)

    def _client(self, sampling: Sampling) -> ChatClient:
        endpoint = self.endpoint
        return ChatClient(
            endpoint.base_url,
            endpoint.model,
            endpoint.api_key_env,
            concurrency=endpoint.concurrency,
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            timeout_s=endpoint.timeout_s,
            max_attempts=endpoint.max_attempts,
            backoff_s=endpoint.backoff_s,
            longest_backoff_s=endpoint.longest_backoff_s,
            answered=self.answered,
            enlargements=0,
            whole=True,
        )
