"""Saved samples of one benchmark: written in finishing order, read question by question."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import IO, Any

from curiosft_cli.data.records import Problem
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import PACKED_SUFFIX, check_types, open_lines

SAMPLES = "samples.jsonl"
NOWHERE = -1

TEXT_COLUMNS = ("text", "response", "completion")
OF_SAMPLE = {
    "id": (str, int), "tokens": (int, NoneType), "token_ids": (list, NoneType), "finish_reason": (str, NoneType),
}  # fmt: skip
LAYOUT = "A row is {id, sample?, text, finish_reason?, tokens?, token_ids?, prefilled?}, as an evaluation saves it."


@dataclass(frozen=True)
class Sample:
    """One saved completion.

    Attributes:
        text: the completion without the prompt; "" if nothing was sampled.
        tokens: its length with the end token; 0 if the file does not have it.
        finish_reason: "stop", "length", "prompt_too_long", or "refused" by an endpoint.
        token_ids: its tokens; () if the file does not have them.
        prefilled: whether the prompt ended with the opening think tag; None if the file does not say.
        error: the endpoint's message, if it refused.
    """

    text: str
    tokens: int
    finish_reason: str
    token_ids: tuple[int, ...] = ()
    prefilled: bool | None = None
    error: str = ""


def sample_row(question: str, number: int, sample: Sample) -> dict[str, Any]:
    """One line of samples.jsonl."""
    row: dict[str, Any] = {"id": question, "sample": number, "finish_reason": sample.finish_reason}
    row |= {"tokens": sample.tokens, "text": sample.text}
    if sample.token_ids:
        row["token_ids"] = list(sample.token_ids)
    if sample.error:
        row["error"] = sample.error
    return row if sample.prefilled is None else {**row, "prefilled": sample.prefilled}


class Generations:
    """An index of a file of samples, by (question, number). Memory holds only their places in the file.

    Rows of other questions and an incomplete last line are skipped. If two rows are the same sample, the first counts.
    A row without a number is the next sample of its question.

    Args:
        path: JSONL or `.jsonl.zst`; a file that does not exist has no samples.
        problems: the questions.
        most: limit that sample numbers must stay below.

    Raises:
        CurioError: a line is not a sample.
    """

    def __init__(self, path: Path, problems: Sequence[Problem], most: int = 1_000_000) -> None:
        self.path = path
        self._ids = [problem.id for problem in problems]
        self._places = {id_: array("q") for id_ in self._ids}
        if path.exists():
            self._index(most)

    def missing(self, samples: int) -> list[tuple[int, int]]:
        """(index of the question, number of the sample) of each sample that is not saved yet."""
        return [
            (index, number)
            for index, id_ in enumerate(self._ids)
            for number in range(samples)
            if self._place(id_, number) == NOWHERE
        ]

    def complete_samples(self) -> int:
        """The number of samples that every question has."""
        firsts = ([*places, NOWHERE].index(NOWHERE) for places in self._places.values())
        return min(firsts, default=0)

    def read(self, samples: int) -> Iterator[tuple[int, Sample]]:
        """Yield (index of the question, sample) of the first `samples` of each question, question by question."""
        with self._seekable() as file:
            for index, id_ in enumerate(self._ids):
                for number in range(samples):
                    file.seek(self._place(id_, number))
                    yield index, _sample(json.loads(file.readline()), self.path)

    def _place(self, id_: str, number: int) -> int:
        places = self._places[id_]
        return places[number] if number < len(places) else NOWHERE

    def _seekable(self) -> IO[bytes]:
        """The file, or a temporary file with the content of a compressed one."""
        if self.path.suffix != PACKED_SUFFIX:
            return self.path.open("rb")
        beside = self.path.parent
        content = tempfile.TemporaryFile(dir=beside if os.access(beside, os.W_OK) else None)  # noqa: SIM115
        with open_lines(self.path) as packed:
            shutil.copyfileobj(packed, content)
        return content

    def _index(self, most: int) -> None:
        following = dict.fromkeys(self._ids, 0)
        with open_lines(self.path) as file:
            place = 0
            for line in file:
                start, place = place, place + len(line)
                if not line.endswith(b"\n"):
                    break
                row = _row(line, self.path, most)
                if (places := self._places.get(row["id"])) is not None:
                    number = row.get("sample", following[row["id"]])
                    following[row["id"]] = number + 1
                    places.extend([NOWHERE] * (number + 1 - len(places)))
                    if places[number] == NOWHERE:
                        places[number] = start


def _row(line: bytes, path: Path, most: int) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CurioError(f"{path} holds a line that is not JSON: {error}", LAYOUT) from None
    number = row.get("sample", 0) if isinstance(row, dict) else None
    if not isinstance(row, dict) or "id" not in row or not isinstance(number, int) or not 0 <= number < most:
        raise CurioError(f"{path} holds a row without an id, or with a sample number that is none", LAYOUT)
    check_types(row, OF_SAMPLE, f"{path}, a row of question {row['id']}", LAYOUT)
    return {**row, "id": str(row["id"])}


def _sample(row: Mapping[str, Any], path: Path) -> Sample:
    text = next((row[column] for column in TEXT_COLUMNS if isinstance(row.get(column), str)), None)
    if text is None:
        raise CurioError(f"{path}, sample {row.get('sample', 0)} of question {row['id']} has no text", LAYOUT)
    token_ids = tuple(row.get("token_ids") or ())
    prefilled = row.get("prefilled")
    return Sample(
        text,
        len(token_ids) if row.get("tokens") is None else row["tokens"],
        row.get("finish_reason") or "stop",
        token_ids,
        prefilled if isinstance(prefilled, bool) else None,
    )
