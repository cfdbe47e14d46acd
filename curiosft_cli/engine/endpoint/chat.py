"""Chats with an endpoint: messages in, text out. A text cut at its limit is requested again with a larger one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curiosft_cli.engine.endpoint.budget import Budget
from curiosft_cli.engine.endpoint.client import Endpoint, EndpointClient
from curiosft_cli.engine.endpoint.outcomes import Fault, RequestFailed, Spent, first_choice


@dataclass(frozen=True)
class ChatCompletion:
    """What a chat endpoint wrote.

    Attributes:
        text: of the model.
        truncated: it was cut at its token limit, also at the larger one.
        prompt_tokens, completion_tokens, tries: see `Spent`.
        seconds: duration of the request that succeeded, in seconds.
        served_by: the model's name in the response, "" where it has none. The requested name may be a moving one.
    """

    text: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int
    tries: int
    seconds: float
    served_by: str = ""

    @property
    def spent(self) -> Spent:
        """Its tokens and tries."""
        return Spent(self.prompt_tokens, self.completion_tokens, self.tries)


class ChatClient(EndpointClient):
    """A model behind a chat endpoint; use it as an asynchronous context.

    Args:
        endpoint: where it is.
        temperature: sampling temperature.
        max_tokens: longest completion, in tokens.
        answered: as in `EndpointClient`.
        budget: as in `EndpointClient`.
        enlargements: how often a cut text is requested again with twice the limit.
        hopeless: refusals, without any answer, that stop the run.
        whole: keep all that the model wrote: its reasoning in think tags, where the endpoint returns that apart, and
            an empty text.

    Attributes:
        refused: requests that the endpoint refused.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        temperature: float = 0.0,
        max_tokens: int = 2048,
        answered: int = 0,
        budget: Budget | None = None,
        enlargements: int = 1,
        hopeless: int = 20,
        whole: bool = False,
    ) -> None:
        super().__init__(endpoint, answered=answered, budget=budget)
        self._request = {"model": endpoint.model, "temperature": temperature}
        self._limits = [max_tokens << enlargement for enlargement in range(enlargements + 1)]
        self._hopeless, self._whole = hopeless, whole
        self.refused = 0

    async def ask(
        self, prompt: str | Sequence[Mapping[str, str]], longest: int | None = None, **sampling: float
    ) -> ChatCompletion:
        """The model's reply to one user message.

        Args:
            prompt: the message, or the messages of a chat.
            longest: characters beyond which a text is of no use; one that is cut there is not requested again.
            sampling: further settings of this request: `top_p`, `seed`.

        Raises:
            RequestFailed: this message gets no reply.
            OutOfBudget: it is not sent.
            CurioError: exit code 3 when the endpoint refuses everybody or is down.
        """
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        request = {**self._request, "messages": messages, **sampling}
        try:
            found = await self._complete(request, self._limits[0], longest)
        except RequestFailed as failure:
            self.refused += not failure.may_pass
            if self.refused >= self._hopeless and not self.answered:
                raise self.stopped(f"refuses every question, {self.refused} so far") from None
            raise
        for limit in self._limits[1:]:
            if not found.truncated or (longest is not None and len(found.text) > longest):
                break
            self.faults["length"] += 1
            try:
                larger = await self._complete(request, limit, longest)
            except RequestFailed as failure:
                if not failure.may_pass:
                    break  # the larger limit does not fit into the model's context
                failure.spent = failure.spent.plus(found.spent)
                raise
            found = replace(larger, **larger.spent.plus(found.spent)._asdict())
        return found

    async def _complete(self, request: Mapping[str, Any], limit: int, longest: int | None) -> ChatCompletion:
        characters = (sum(len(message["content"]) for message in request["messages"]), longest or 0)
        reply = await self.send("/chat/completions", {**request, "max_tokens": limit}, self._read, characters)
        text, truncated, served_by = reply.value
        return ChatCompletion(text, truncated, *reply.spent, reply.seconds, served_by)

    def _read(self, response: Any) -> tuple[str, bool, str]:
        """The text, whether it was cut, and the name that the endpoint gives its model."""
        choice = first_choice(response)
        message, reason = choice.get("message") or {}, choice.get("finish_reason")
        # Half of a surrogate pair, where an emoji was cut, fits into no file.
        text = (message.get("content") or "").encode("utf-8", "replace").decode()
        if self._whole:
            text = with_reasoning(text, message)
        if not text.strip() and reason != "length":
            if reason == "content_filter":
                raise RequestFailed("the endpoint's content filter")
            if not self._whole:
                raise Fault("empty", "an empty answer", alive=True)
        return text, reason == "length", str(response.get("model") or "")


def with_reasoning(text: str, message: Mapping[str, Any]) -> str:
    """The text with the reasoning that the endpoint returned apart from it, in think tags again."""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(reasoning, str) or not reasoning.strip():
        return text
    return f"<think>\n{reasoning.strip()}\n</think>\n{text}" if text else f"<think>\n{reasoning.strip()}"
