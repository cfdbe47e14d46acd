"""Saved samples of one benchmark: appended in finishing order, read back question by question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curiosft_cli.run.errors import CurioError
from curiosft_cli.tasks.records import Problem

TEXT_COLUMNS = ("text", "response", "completion")
LAYOUT = "A row is {id, sample?, text, finish_reason?, tokens?, token_ids?}, as in an evaluation's samples.jsonl."


@dataclass(frozen=True)
class Sample:
    """One saved completion.

    Attributes:
        text: without the prompt; "" when the prompt was too long to be sent.
        tokens: its length, end token included; 0 when the file does not say.
        finish_reason: "stop", "length" or "prompt_too_long".
        token_ids: the tokens, or () when the file does not have them.
    """

    text: str
    tokens: int
    finish_reason: str
    token_ids: tuple[int, ...]


def sample_row(
    question: str, sample: int, text: str, tokens: int, finish_reason: str, token_ids: Sequence[int] = ()
) -> dict[str, Any]:
    """One line of samples.jsonl."""
    row = {"id": question, "sample": sample, "finish_reason": finish_reason, "tokens": tokens, "text": text}
    return {**row, "token_ids": list(token_ids)} if token_ids else row


class Generations:
    """The samples of these questions in a file, by (question, number); only their places are held in memory.

    Rows of other questions and a torn last line are passed over; of two rows for one sample the first counts. A row
    without a number is the next one of its question.

    Args:
        path: JSONL; one that does not exist has no samples.
        problems: the questions asked for.

    Raises:
        CurioError: a line is not a sample.
    """

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self._ids = [problem.id for problem in problems]
        self._places: dict[tuple[str, int], int] = {}
        if path.exists():
            self._index()

    def missing(self, samples: int) -> list[tuple[int, int]]:
        """(index of the question, number of the sample) of what is not saved yet."""
        return [
            (index, number)
            for index, id_ in enumerate(self._ids)
            for number in range(samples)
            if (id_, number) not in self._places
        ]

    def complete_samples(self) -> int:
        """The number of samples that every question has."""
        counts = dict.fromkeys(self._ids, 0)
        for id_ in self._ids:
            while (id_, counts[id_]) in self._places:
                counts[id_] += 1
        return min(counts.values(), default=0)

    def read(self, samples: int) -> Iterator[tuple[int, Sample]]:
        """Yield (index of the question, sample), question by question, the first `samples` of each."""
        with self.path.open("rb") as file:
            for index, id_ in enumerate(self._ids):
                for number in range(samples):
                    file.seek(self._places[id_, number])
                    yield index, _sample(json.loads(file.readline()), self.path)

    def _index(self) -> None:
        wanted = set(self._ids)
        following = dict.fromkeys(self._ids, 0)
        with self.path.open("rb") as file:
            place = 0
            for line in file:
                start, place = place, place + len(line)
                if not line.endswith(b"\n"):
                    break
                row = _row(line, self.path)
                if row["id"] in wanted:
                    number = row.get("sample", following[row["id"]])
                    following[row["id"]] = number + 1
                    self._places.setdefault((row["id"], number), start)


def _row(line: bytes, path: Path) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise CurioError(f"{path} holds a line that is not JSON: {error}", LAYOUT) from None
    if not isinstance(row, dict) or "id" not in row or not isinstance(row.get("sample", 0), int):
        raise CurioError(f"{path} holds a row without an id, or with a sample number that is none", LAYOUT)
    return {**row, "id": str(row["id"])}


def _sample(row: Mapping[str, Any], path: Path) -> Sample:
    text = next((row[column] for column in TEXT_COLUMNS if isinstance(row.get(column), str)), None)
    if text is None:
        raise CurioError(f"{path}, sample {row.get('sample', 0)} of question {row['id']} has no text", LAYOUT)
    token_ids = tuple(row.get("token_ids") or ())
    return Sample(text, row.get("tokens", len(token_ids)), row.get("finish_reason") or "stop", token_ids)
