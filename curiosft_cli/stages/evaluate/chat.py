"""Sampling from an endpoint that takes chats only, as every provider's does: messages in, text out.

The endpoint's own template makes the prompt, so there is no prefill of ours, and the model's tokenizer need not be
here: lengths are what the endpoint counts. If the template ended the prompt with the opening think tag, the text closes
a thought that it does not open. The sample then counts as prefilled, and the required format asks the same of it as of
any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from curiosft_cli.data.response_format import THINK_CLOSE, THINK_OPEN
from curiosft_cli.engine.base import Sampling
from curiosft_cli.engine.endpoint.chat import ChatClient
from curiosft_cli.engine.endpoint.client import Endpoint
from curiosft_cli.engine.endpoint.concurrency import in_parallel, iterate
from curiosft_cli.engine.endpoint.outcomes import RequestFailed
from curiosft_cli.evaluation.samples import Sample
from curiosft_cli.evaluation.summary import REFUSED
from curiosft_cli.run.errors import MISSING, CurioError


def template_opened(text: str) -> bool:
    """Whether the endpoint's template seems to have ended the prompt with the opening think tag."""
    return THINK_CLOSE in text and THINK_OPEN not in text


Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class ChatSampler:
    """A model behind a chat endpoint.

    Attributes:
        endpoint: where it is and how patient the client is.
        answered: samples that it has given before.
    """

    endpoint: Endpoint
    answered: int = 0

    def stream(
        self, chats: Sequence[Messages], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Sample]]:
        """Yield `(index of the chat, sample)` in finishing order; one sample per chat.

        A chat that the endpoint refuses comes last, as an empty sample. An error is raised after all samples that could
        be drawn.

        Raises:
            CurioError: exit code 3 when the endpoint refuses everybody or is down, or when chats got no answer.
        """
        client = ChatClient(
            self.endpoint,
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            answered=self.answered,
            enlargements=0,
            whole=True,
        )
        refused: list[tuple[int, str]] = []
        lost: list[str] = []

        async def sample_all(put: Callable[[tuple[int, Sample]], None]) -> None:
            async def one(index: int) -> None:
                try:
                    found = await client.ask(chats[index], top_p=sampling.top_p, seed=seeds[index])
                except RequestFailed as failure:
                    if failure.may_pass:
                        lost.append(str(failure))
                    else:
                        refused.append((index, str(failure)))
                    return
                reason = "length" if found.truncated else "stop"
                opened = template_opened(found.text)
                put((index, Sample(found.text, found.completion_tokens, reason, prefilled=opened)))

            async with client:
                await in_parallel(one, range(len(chats)), min(self.endpoint.concurrency, len(chats)))

        yield from iterate(sample_all)
        if refused and not client.answered:
            raise CurioError(
                f"{self.endpoint.base_url} refused all of {len(chats)} requests: {refused[0][1]}",
                "Check eval.endpoint_model and the sampling settings; some models take no temperature or seed.",
                MISSING,
            )
        for index, why in refused:
            yield index, Sample("", 0, REFUSED, error=why)
        if lost:
            raise CurioError(
                f"{self.endpoint.base_url} gave no answer to {len(lost)} of {len(chats)} requests: {lost[0]}",
                "The same command requests what is missing.",
                MISSING,
            )
