"""The rows of each optimizer step, tokenised ahead by a worker thread while the texts stay on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.run.errors import CurioError
from curiosft_cli.tasks.spool import Spool
from curiosft_cli.train.batches import step_rows
from curiosft_cli.train.encode import PromptFormat, encode_prompt, encode_row, response_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.tasks.records import Problem
    from curiosft_cli.train.encode import Row

SEAM_TOKENS = 8
"""Tokens that a question may gain where it meets the template, in the bound that spares tokenising it."""


@dataclass
class LeftOut:
    """Rows that can't be trained on: ids of prompts that are too long, and of rows without a response."""

    prompt_too_long: list[str] = field(default_factory=list)
    no_response: list[str] = field(default_factory=list)


class RowFeed:
    """Gives the rows of any step; a worker has the next ones ready.

    Args:
        problems: the usable ones, as `usable` gives them.
        encode: from a problem to token ids; runs in the worker.
        batch_size: rows of a step.
        seed: of the order.
        ahead: steps that the worker is ahead.
    """

    def __init__(
        self,
        problems: Spool,
        encode: Callable[[Problem], Row],
        batch_size: int,
        seed: int,
        ahead: int = 2,
    ) -> None:
        self.batch_size = batch_size
        self._problems, self._encode, self._seed, self._ahead = problems, encode, seed, ahead
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tokenise")
        self._ready: dict[int, Future[list[Row]]] = {}

    def __len__(self) -> int:
        return len(self._problems)

    def rows(self, step: int) -> list[Row]:
        """The rows of the 0-based optimizer step."""
        for at in range(step, step + 1 + self._ahead):
            if at not in self._ready:
                self._ready[at] = self._worker.submit(self._step, at)
        rows = self._ready[step].result()
        for old in [at for at in self._ready if at < step]:
            del self._ready[old]
        return rows

    def close(self) -> None:
        """Stop the worker and drop the texts."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._problems.close()

    def _step(self, step: int) -> list[Row]:
        order = step_rows(len(self), self.batch_size, self._seed, step)
        return [self._encode(self._problems[index]) for index in order]


def usable(
    tokenizer: PreTrainedTokenizerBase, problems: Iterable[Problem], style: PromptFormat, max_prompt: int, left: LeftOut
) -> Iterator[Problem]:
    """The problems that have a response and whose prompt fits; the others go to `left`.

    A question that cannot be too long, since no token is shorter than a byte, is not tokenised for this.
    """
    frames: dict[str, int] = {}
    for problem in problems:
        if not response_text(problem.response, style):
            left.no_response.append(problem.id)
            continue
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in (problem.question, *problem.choices))
        if problem.kind not in frames:
            frames[problem.kind] = len(encode_prompt(tokenizer, replace(problem, question=""), style)) + SEAM_TOKENS
        # Each choice comes with a letter, a full stop and a line break of its own.
        certain = frames[problem.kind] + size + 8 * len(problem.choices) <= max_prompt
        if certain or len(encode_prompt(tokenizer, problem, style)) <= max_prompt:
            yield problem
        else:
            left.prompt_too_long.append(problem.id)


def within(
    problems: Iterable[Problem], encode: Callable[[Problem], Row], context: int, max_prompt: int
) -> Iterator[Problem]:
    """The problems as they come; a row that may be longer than the context is tokenised to see.

    A prompt has at most `max_prompt` tokens, and no token of the response is shorter than a byte.

    Raises:
        CurioError: a row is longer than the context.
    """
    for problem in problems:
        may_exceed = max_prompt + len(problem.response.encode("utf-8", "surrogatepass")) >= context
        if may_exceed and (tokens := len(encode(problem))) > context:
            raise CurioError(
                f"row {problem.id} has {tokens} tokens, the model's context is {context}",
                "Lower sft.max_response_length; or take a model made for a longer context; or set "
                "model.max_position_embeddings and model.rope_theta (Qwen2.5-Math-7B: 16384 and 40000).",
            )
        yield problem


def open_feed(
    tokenizer: PreTrainedTokenizerBase,
    problems: Iterable[Problem],
    style: PromptFormat,
    folder: Path,
    *,
    max_prompt: int,
    max_response: int,
    batch_size: int,
    seed: int,
    context: int | None = None,
) -> tuple[RowFeed, LeftOut]:
    """Spool the usable problems into `folder` and start the worker.

    Args:
        context: of the model, tokens; none does not look.

    Raises:
        CurioError: a row is longer than the context.
    """
    left = LeftOut()

    def encode(problem: Problem) -> Row:
        return encode_row(tokenizer, problem, style, max_response)

    chosen = usable(tokenizer, problems, style, max_prompt, left)
    if context is not None and context < max_prompt + max_response:
        chosen = within(chosen, encode, context, max_prompt)
    spool = Spool(chosen, folder)
    return RowFeed(spool, encode, batch_size, seed), left
