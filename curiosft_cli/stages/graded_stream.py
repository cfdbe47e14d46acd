"""Sample and grade at the same time: completions are graded while others still run."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.base import Completion, cut_to
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.train.encode import decode_completion

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.data.records import Grade, Problem
    from curiosft_cli.engine.base import Sampling, TokenSampler
    from curiosft_cli.grading.pool import GraderPool


@dataclass(frozen=True)
class GradedRequest:
    """One response that is sampled and graded.

    Attributes:
        key: the caller's name for it, unique in a stream.
        problem: what the response is graded against.
        prompt_ids: tokens of the prompt.
        seed: of the completion.
        given: tokens at the start of the response that are not sampled.
        complete: the completion, where nothing is left to sample.
    """

    key: tuple[int, int]
    problem: Problem
    prompt_ids: Sequence[int]
    seed: int
    given: tuple[int, ...] = ()
    complete: Completion | None = None


@dataclass(frozen=True)
class GradedCompletion:
    """A response, finished and graded.

    Attributes:
        request: what it answers.
        completion: the tokens after `request.given`.
        text: the whole response.
        grade: of that text.
    """

    request: GradedRequest
    completion: Completion
    text: str
    grade: Grade


def graded_stream(
    engine: TokenSampler,
    pool: GraderPool,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[GradedRequest],
    sampling: Sampling,
    *,
    on_sampled: Callable[[int, int], None] = lambda done, total: None,
    **grading: Any,
) -> Iterator[GradedCompletion]:
    """Yield graded responses in the order in which their grades are ready.

    Args:
        engine: samples all requests that are not complete in one call.
        pool: must have nothing else to do.
        on_sampled: called after each completion with (completions so far, completions in all).
        grading: of each `GradeItem`: `prefilled`, `grader`.
    """
    waiting: dict[Hashable, tuple[GradedRequest, Completion, str]] = {}

    def submit(request: GradedRequest, completion: Completion) -> None:
        text = decode_completion(tokenizer, (*request.given, *completion.token_ids))
        waiting[request.key] = request, completion, text
        truncated = completion.finish_reason == "length"
        pool.submit(request.key, GradeItem(text, request.problem, truncated=truncated, **grading))

    for request in requests:
        if request.complete is not None:
            submit(request, request.complete)
    open_requests = [request for request in requests if request.complete is None]
    if open_requests:
        prompts = [[*request.prompt_ids, *request.given] for request in open_requests]
        sampled = engine.stream(prompts, sampling, [request.seed for request in open_requests])
        for done, (index, completion) in enumerate(sampled, start=1):
            request = open_requests[index]
            submit(request, cut_to(completion, sampling.max_tokens - len(request.given)))
            on_sampled(done, len(open_requests))
            for key, grade in pool.poll():
                yield GradedCompletion(*waiting.pop(key), grade)
    for key, grade in pool.drain():
        yield GradedCompletion(*waiting.pop(key), grade)
