"""The interface of inference engines: token ids in, token ids and log-probabilities out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

LogprobKind = Literal["raw", "processed"]
"""Which log-probabilities an engine reports of the tokens it drew, in nats. "raw": at temperature 1 over the whole
vocabulary. "processed": of the distribution that was drawn from, after temperature and nucleus. Neither can be
computed from the other."""


@dataclass(frozen=True)
class Sampling:
    """How to sample one completion.

    Attributes:
        temperature: 0 is greedy.
        top_p: nucleus mass in (0, 1].
        max_tokens: longest completion, end token included.
        stop_token_ids: any of these ends the completion and is kept as its last token.
        with_logprobs: false allows completions without log-probabilities, which is faster.
    """

    temperature: float
    top_p: float
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    with_logprobs: bool = True


@dataclass(frozen=True)
class Completion:
    """One sampled completion.

    Attributes:
        token_ids: generated tokens, the end token included when it was produced.
        logprobs: log-probability of each token in nats, of the kind that the engine was opened with.
        finish_reason: "stop" (an end token), or "length" (cut at `max_tokens` or the context).
        weights_version: the version of the weights that made it (0 until the first `load_weights`).
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    weights_version: int = 0


def cut_to(completion: Completion, max_tokens: int) -> Completion:
    """At most `max_tokens` tokens of a completion; a completion that is cut finishes with "length"."""
    if len(completion.token_ids) <= max_tokens:
        return completion
    return replace(
        completion,
        token_ids=completion.token_ids[:max_tokens],
        logprobs=completion.logprobs[:max_tokens],
        finish_reason="length",
    )


class TokenSampler(Protocol):
    """A model that samples and nothing more: all that an evaluation needs."""

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Yield `(index of the prompt, completion)` in finishing order; one completion per prompt.

        A prompt that is empty or fills the context is refused by the call itself. Leaving the iterator ends what is
        still running; one stream at a time.

        `seeds` has one entry per prompt; equal seeds on equal prompts draw equal completions.
        """
        ...

    def close(self) -> None:
        """End it and every process that it started. May be called twice."""
        ...


class RolloutEngine(TokenSampler, Protocol):
    """A model that samples and takes new weights: embedded vLLM, vLLM servers, or transformers."""

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probabilities in nats of `token_ids[1:]`, each given the tokens before it, raw in every engine.

        The sequence must be at least one token shorter than the context.
        """
        ...

    def load_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace all weights by `(name, full tensor)` pairs and forget every cached prefix.

        The pairs are those of the trainer's state dict, head included, also when it is tied.
        """
        ...

    def sleep(self) -> None:
        """Give accelerator memory back during the training phase (no effect on CPU)."""
        ...

    def wake(self) -> None:
        """Take the memory again; on an accelerator the weights are undefined until `load_weights`."""
        ...


def generate(
    engine: RolloutEngine,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int] | None = None,
) -> list[Completion]:
    """Collect `engine.stream` in the order of the prompts."""
    done = dict(engine.stream(prompts, sampling, seeds))
    return [done[index] for index in range(len(prompts))]


def sample_seed(run_seed: int, task: str, question: str, sample: int) -> int:
    """First 63 bits of SHA-256: equal everywhere, and neighbouring samples share no random stream.

    Args:
        run_seed: `run.seed`.
        task: benchmark or training step.
        question: id of the question.
        sample: number of the completion.
    """
    digest = hashlib.sha256(f"{run_seed}|{task}|{question}|{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
