"""The rows of each optimizer step, tokenised ahead by a worker thread while the texts stay on disk."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.data.records import Problem
from curiosft_cli.data.sources import RESPONSE_COLUMNS
from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.batches import step_rows
from curiosft_cli.train.encode import PromptFormat, encode_prompt, encode_row, response_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.data.files import FileRow
    from curiosft_cli.data.records import Problem
    from curiosft_cli.train.encode import Row

SEAM_TOKENS = 8
"""Tokens that a question may gain where it meets the template, in the bound that spares tokenising it."""

OR_COLUMNS = f"{', '.join(RESPONSE_COLUMNS)} or messages"


class RowFeed:
    """Gives the rows of any step; a worker has the next ones ready.

    Args:
        problems: the usable ones, as `usable` gives them.
        encode: from a problem to token ids; runs in the worker.
        batch_size: rows of a step.
        seed: of the order.
        ahead: steps that the worker is ahead.
        drop_last: see `steps_per_epoch`.
    """

    def __init__(
        self,
        problems: Spool,
        encode: Callable[[Problem], Row],
        batch_size: int,
        seed: int,
        ahead: int = 2,
        drop_last: bool = False,
    ) -> None:
        self.batch_size = batch_size
        self._problems, self._encode, self._seed, self._ahead = problems, encode, seed, ahead
        self._drop_last = drop_last
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

    def first(self, count: int) -> list[Row]:
        """The first rows, as they stand in the data; fewer where there are not as many."""
        some = range(min(count, len(self)))
        return self._worker.submit(lambda: [self._encode(self._problems[index]) for index in some]).result()

    def close(self) -> None:
        """Stop the worker and drop the texts."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._problems.close()

    def _step(self, step: int) -> list[Row]:
        order = step_rows(len(self), self.batch_size, self._seed, step, self._drop_last)
        return [self._encode(self._problems[index]) for index in order]


def with_response(
    found: Iterable[tuple[str, FileRow, Problem]], style: PromptFormat, lacking: list[str] | None
) -> Iterator[Problem]:
    """The problems that have a response; without one there is nothing to supervise, and the row is a bad one.

    Args:
        found: (where the row stands, the row as it was found, its problem).
        style: what the prompt supplies is no response.
        lacking: collects a line for each bad row; None stops at the first.

    Raises:
        CurioError: a row has no response and `lacking` is None.
    """
    for place, row, problem in found:
        if response_text(problem.response, style):
            yield problem
            continue
        there = next((column for column in (*RESPONSE_COLUMNS, "messages") if row.get(column) is not None), None)
        what = f"column {there}: found no text" if there else f"found the columns {', '.join(sorted(row))}"
        said = f"{place}: {what}, expected the expert's response{'' if there else f' in {OR_COLUMNS}'}"
        if lacking is None:
            raise CurioError(said, "Mend the row, or set data.on_bad_row=skip to leave such rows out.")
        lacking.append(said)


def usable(
    tokenizer: PreTrainedTokenizerBase,
    problems: Iterable[Problem],
    style: PromptFormat,
    max_prompt: int,
    too_long: list[str],
) -> Iterator[Problem]:
    """The problems whose prompt fits; the ids of the others go to `too_long`.

    A question that cannot be too long, since no token is shorter than a byte, is not tokenised for this.
    """
    frames: dict[str, int] = {}
    for problem in problems:
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in (problem.question, *problem.choices))
        if problem.kind not in frames:
            frames[problem.kind] = len(encode_prompt(tokenizer, replace(problem, question=""), style)) + SEAM_TOKENS
        # Each choice comes with a letter, a full stop and a line break of its own.
        certain = frames[problem.kind] + size + 8 * len(problem.choices) <= max_prompt
        if certain or len(encode_prompt(tokenizer, problem, style)) <= max_prompt:
            yield problem
        else:
            too_long.append(problem.id)


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
    drop_last: bool = False,
    context: int | None = None,
) -> tuple[RowFeed, list[str]]:
    """Spool the usable problems into `folder` and start the worker; also returns the ids of too long prompts.

    Args:
        drop_last: see `steps_per_epoch`.
        context: of the model, tokens; None does not check it.

    Raises:
        CurioError: a row is longer than the context.
    """
    too_long: list[str] = []

    def encode(problem: Problem) -> Row:
        return encode_row(tokenizer, problem, style, max_response)

    chosen = usable(tokenizer, problems, style, max_prompt, too_long)
    if context is not None and context < max_prompt + max_response:
        chosen = within(chosen, encode, context, max_prompt)
    spool = Spool(chosen, folder)
    return RowFeed(spool, encode, batch_size, seed, drop_last=drop_last), too_long


class Spool:
    """A nameless temporary file of problems and where each begins; gone with the process, also after `kill -9`.

    Args:
        problems: written in this order.
        folder: the file system that holds the file.
    """

    def __init__(self, problems: Iterable[Problem], folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as this object)
        self._starts = array("Q", [0])
        for problem in problems:
            line = json.dumps(asdict(problem), ensure_ascii=False).encode("utf-8", "surrogatepass")
            self._file.write(line)
            self._starts.append(self._starts[-1] + len(line))
        self._file.flush()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Problem:
        start, end = self._starts[index], self._starts[index + 1]
        self._file.seek(start)
        fields: dict[str, Any] = json.loads(self._file.read(end - start).decode("utf-8", "surrogatepass"))
        fields["choices"] = tuple(fields["choices"])
        return Problem(**fields)

    def close(self) -> None:
        """Drop the file."""
        self._file.close()
