"""Read problems from local files, the hub, this run's cleaned questions, or the built-in generator.

A row's columns decide its layout: verl / LUFFY (`prompt` messages, `reward_model`, `target`), `messages`,
`prompt` + `completion`, `problem` + `solution`, and our own `question`, `answer`, `choices`, `response`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from curiosft_cli.data.arithmetic import SPLITS, generate, noisy
from curiosft_cli.data.files import BadRow, FileRow, read_rows
from curiosft_cli.data.hub import hub_rows, is_hub_id
from curiosft_cli.data.records import Problem
from curiosft_cli.data.response_format import THINK_OPEN, last_box
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.text import shortened

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Data

QUESTION_COLUMNS = ("question", "problem")
MESSAGE_COLUMNS = ("messages", "prompt")
ANSWER_COLUMNS = ("answer", "gold", "ground_truth")
RESPONSE_COLUMNS = ("response", "solution", "completion", "target")
BROKEN_TEXT = re.compile("[\0\ud800-\udfff]")


class Problems(list[Problem]):
    """Problems in the order of their rows; `skipped` has one line for each row that was left out."""

    def __init__(self, problems: Iterable[Problem], skipped: list[str]) -> None:
        super().__init__(problems)
        self.skipped = skipped


def read_all(data: Data, *, run_dir: Path, sources: Iterable[str] | None = None) -> Problems:
    """The first `data.rows` problems of `data.train` (or of `sources`), in order.

    Raises:
        CurioError: a source does not exist, or a row cannot be read and `data.on_bad_row` is "stop".
    """
    skipped: list[str] = []
    found = read_numbered(data, skipped, run_dir=run_dir, sources=sources)
    return Problems((problem for *_, problem in found), skipped)


def read_numbered(
    data: Data, skipped: list[str], *, run_dir: Path, sources: Iterable[str] | None = None
) -> Iterator[tuple[int, int, FileRow, Problem]]:
    """Stream `(index of the source from 0, row number from 1, unchanged row, problem)` over the sources.

    If `data.on_bad_row` is "skip", each bad row adds a line to `skipped`; else it is an error.
    """
    report = skipped if data.on_bad_row == "skip" else None
    streams = (
        ((index, *found) for found in _numbered(source, run_dir=run_dir, skipped=report))
        for index, source in enumerate(sources or data.train)
    )
    return itertools.islice(itertools.chain.from_iterable(streams), data.rows)


def read_source(source: str, *, run_dir: Path, skipped: list[str] | None = None) -> Iterator[tuple[FileRow, Problem]]:
    """Stream `(unchanged row, problem)` of one source.

    Args:
        source: a generator, `rephrase`, a file, or a hub id.
        run_dir: the run folder; the source `rephrase` is its cleaned questions.
        skipped: gets a line for each bad row, which is left out. If None, a bad row is an error.

    Raises:
        CurioError: the source does not exist or cannot be read, or it has a bad row.
    """
    return ((row, problem) for _, row, problem in _numbered(source, run_dir=run_dir, skipped=skipped))


def _numbered(source: str, *, run_dir: Path, skipped: list[str] | None) -> Iterator[tuple[int, FileRow, Problem]]:
    """`read_source` with row numbers from 1."""
    if source.partition(":")[0] in GENERATORS:
        yield from ((number, to_row(problem), problem) for number, problem in enumerate(_generated(source), start=1))
        return
    path = cleaned_questions(run_dir / "rephrase") if source == "rephrase" else Path(source)
    if source == "rephrase" and not path.exists():
        raise CurioError(
            f"this run has no cleaned questions ({path})", "Run `curiosft rephrase` with this configuration first."
        )
    for number, row in numbered_rows(str(path) if source == "rephrase" else source):
        try:
            if isinstance(row, BadRow):
                raise row
            yield number, row, _clean(to_problem(row, f"{path.stem}-{number}"), row)
        except BadRow as error:
            if skipped is None:
                raise CurioError(
                    f"{source}, row {number}: {error}",
                    "Correct the row, or set data.on_bad_row=skip to leave such rows out.",
                ) from None
            skipped.append(f"{source}, row {number}: {error}")


def numbered_rows(source: str) -> Iterator[tuple[int, FileRow | BadRow]]:
    """Stream `(row number from 1, raw row)` of a file (its lines), a generator or a hub id.

    Raises:
        CurioError: the source does not exist or cannot be read.
    """
    if source.partition(":")[0] in GENERATORS:
        return enumerate((to_row(problem) for problem in _generated(source)), start=1)
    if Path(source).exists():
        return read_rows(Path(source))
    if is_hub_id(source):
        return hub_rows(source)
    raise CurioError(f"there is no data file {source}", "Give an existing file, a hub id OWNER/NAME, or a generator.")


def cleaned_questions(folder: Path) -> Path:
    """The file of cleaned questions in the folder of the rephrase stage: parquet if the data was parquet."""
    table = folder / "questions.parquet"
    return table if table.exists() else folder / "questions.jsonl"


def to_problem(row: Mapping[str, Any], default_id: str) -> Problem:
    """Read one row of any known layout, without a leading think tag of the response.

    Raises:
        BadRow: a column is missing or has the wrong type.
    """
    column, question, in_messages = _question(row)
    if not question.strip():
        raise BadRow(f"column {column}: found no text, expected a question")
    choices = _choices(row)
    answer = _answer(row)
    if choices and answer not in tuple(ascii_uppercase[: len(choices)]):
        raise BadRow(f"column answer: found {answer!r}, expected a letter of the {len(choices)} choices")
    return Problem(
        id=_identity(row) or default_id,
        question=question,
        answer=answer,
        source=str(row.get("source") or row.get("data_source") or ""),
        kind="choice" if choices else "math",
        choices=choices,
        category=str(row.get("category") or ""),
        response=_expert(row, column, in_messages).lstrip().removeprefix(THINK_OPEN).lstrip("\n"),
    )


def _clean(problem: Problem, row: Mapping[str, Any]) -> Problem:
    """The problem, if its question is valid Unicode text.

    Raises:
        BadRow: it holds NUL characters or lone surrogates.
    """
    if BROKEN_TEXT.search(problem.question):
        column = _question(row)[0]
        raise BadRow(f"column {column}: found NUL characters or half characters, expected Unicode text")
    return problem


def to_row(problem: Problem) -> FileRow:
    """A problem as a row of our own layout, without empty columns."""
    row = {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "source": problem.source,
        "choices": list(problem.choices),
        "category": problem.category,
        "response": problem.response,
    }
    return {column: value for column, value in row.items() if value}


def with_question(row: Mapping[str, Any], question: str) -> FileRow:
    """The same row with another question, in any layout; nothing else changes.

    Raises:
        BadRow: the row holds no question.
    """
    column, _, _ = _question(row)
    if isinstance(row[column], str):
        return {**row, column: question}
    turns = [dict(turn) for turn in row[column]]
    last = max(index for index, turn in enumerate(turns) if turn.get("role") == "user")
    turns[last]["content"] = question
    return {**row, column: turns}


def _question(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Column and text of the question, and the expert's response if it is in the same list of messages."""
    for column in QUESTION_COLUMNS:
        if row.get(column) is not None:
            return column, _text(row, column), ""
    for column in MESSAGE_COLUMNS:
        found = row.get(column)
        if isinstance(found, str):
            return column, found, ""
        if found is not None:
            users, experts = _texts(found, column, "user"), _texts(found, column, "assistant")
            if not users:
                raise BadRow(f"column {column}: found no user message, expected one")
            turns = [str(turn.get("role")) for turn in found if turn.get("role") != "system"]
            if turns not in (["user"], ["user", "assistant"]):
                raise BadRow(
                    f"column {column}: found the turns {', '.join(turns)}, expected one question and at most its answer"
                )
            return column, users[0], experts[0] if experts else ""
    raise BadRow(f"found the columns {', '.join(sorted(row))}; expected question, problem, prompt or messages")


def _texts(messages: Any, column: str, role: str) -> list[str]:
    """The texts of one role in a list of messages."""
    if not isinstance(messages, list) or not all(isinstance(turn, Mapping) for turn in messages):
        raise BadRow(f"column {column}: found {type(messages).__name__}, expected text or a list of messages")
    texts = [turn.get("content") for turn in messages if turn.get("role") == role]
    if not all(isinstance(content, str) for content in texts):
        raise BadRow(f"column {column}: found a message of role {role} without text, expected content as text")
    return texts


def _answer(row: Mapping[str, Any]) -> str:
    """The gold: `reward_model.ground_truth`, an answer column, or the last box of a `solution`."""
    model = row.get("reward_model")
    if isinstance(model, Mapping) and model.get("ground_truth") is not None:
        return _gold(model["ground_truth"], "reward_model.ground_truth")
    for column in ANSWER_COLUMNS:
        if row.get(column) is not None:
            return _gold(row[column], column)
    solution = row.get("solution")
    return (last_box(solution) or "") if isinstance(solution, str) else ""


def _gold(value: Any, column: str) -> str:
    if isinstance(value, list) and value:
        return ",".join(_gold(item, column) for item in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise BadRow(f"column {column}: found {type(value).__name__}, expected text or a number")
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise BadRow(f"column {column}: found {value}, expected text or a number")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _choices(row: Mapping[str, Any]) -> tuple[str, ...]:
    choices = row.get("choices") or ()
    if not isinstance(choices, list | tuple) or not all(isinstance(choice, str) for choice in choices):
        raise BadRow(f"column choices: found {str(choices)[:40]!r}, expected a list of texts")
    return tuple(choices)


def _expert(row: Mapping[str, Any], column: str, in_messages: str) -> str:
    """The response: that in the messages of the question, or that in its own column."""
    if not in_messages:
        return _response(row)
    if column == "prompt" and _response(row) not in ("", in_messages):
        raise BadRow("column prompt: found an answer there and another in a column of its own, expected one")
    return in_messages


def _response(row: Mapping[str, Any]) -> str:
    for column in RESPONSE_COLUMNS:
        value = row.get(column)
        if isinstance(value, str):
            return value
        if value is not None:
            texts = _texts(value, column, "assistant")
            return texts[-1] if texts else ""
    return ""


def _identity(row: Mapping[str, Any]) -> str:
    """The row's own id, or verl's split and index."""
    if row.get("id") is not None:
        return str(row["id"])
    extra = row.get("extra_info")
    if isinstance(extra, Mapping) and extra.get("index") is not None:
        return f"{extra.get('split') or 'row'}-{extra['index']}"
    return ""


def _text(row: Mapping[str, Any], column: str) -> str:
    if isinstance(row[column], str):
        return row[column]
    raise BadRow(f"column {column}: found {type(row[column]).__name__} {str(row[column])[:40]}, expected text")


GENERATORS = ("arithmetic", "arithmetic-forum")


def _generated(source: str, digits: int = 6) -> Iterator[Problem]:
    kind, *arguments = source.split(":")
    numbers = all(n.isdecimal() and len(n) <= digits for n in arguments[1:])
    if not 2 <= len(arguments) <= 3 or arguments[0] not in SPLITS or not numbers:
        raise CurioError(
            f"{shortened(source)} is not a generator",
            f"Write {kind}:SPLIT:ROWS[:SEED] with SPLIT {' or '.join(SPLITS)} and numbers of at most {digits} digits.",
        )
    seed = int(arguments[2]) if len(arguments) == 3 else 0
    problems = generate(arguments[0], int(arguments[1]), seed)
    yield from (noisy(problem, seed) for problem in problems) if kind == "arithmetic-forum" else problems
