"""Training data from wherever it lies: local files, the hub, this run's cleaned questions, the built-in generator.

Layouts, told apart by their columns: verl / LUFFY (`prompt` messages, `reward_model`, `target`), `messages`,
`prompt` + `completion`, and plain `question` or `problem` with `answer`, `solution`, `response`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.errors import BAD_INPUT, MISSING, CurioError
from curiosft_cli.tasks.arithmetic import SPLITS, generate, noisy
from curiosft_cli.tasks.records import Problem

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Data

THINK_OPEN = "<think>"
QUESTION_COLUMNS = ("question", "problem")
ANSWER_COLUMNS = ("answer", "gold", "ground_truth")
RESPONSE_COLUMNS = ("response", "solution", "completion", "target")
GENERATORS = ("arithmetic", "arithmetic-forum")


class BadRow(ValueError):
    """A row that is not a problem; the message says what was found and what is expected."""


def read_all(data: Data, *, run_dir: Path, sources: Iterable[str] | None = None) -> list[Problem]:
    """All problems of `data.train` (or of `sources`) in order, cut at `data.rows`.

    Raises:
        CurioError: a source does not exist, or a row cannot be read and `data.on_bad_row` is "stop".
    """
    problems: list[Problem] = []
    for source in sources or data.train:
        for problem in read_source(source, run_dir=run_dir, skip_bad=data.on_bad_row == "skip"):
            if data.rows is not None and len(problems) == data.rows:
                return problems
            problems.append(problem)
    return problems


def read_source(source: str, *, run_dir: Path, skip_bad: bool = False) -> Iterator[Problem]:
    """Problems of one source: a generator, `rephrase`, a file, or a hub id."""
    kind, *arguments = source.split(":")
    if kind in GENERATORS:
        yield from _generated(source, kind, arguments)
        return
    path = run_dir / "rephrase" / "questions.jsonl" if source == "rephrase" else Path(source)
    if source == "rephrase" and not path.exists():
        raise CurioError(
            f"this run has no cleaned questions ({path})", "Run `curiosft rephrase` with this configuration first."
        )
    rows = read_rows(path) if path.exists() else _hub_rows(source)
    for number, row in rows:
        try:
            yield to_problem(row, f"{path.stem}-{number}")
        except BadRow as error:
            if not skip_bad:
                raise CurioError(
                    f"{source}, row {number}: {error}",
                    "Mend the row, or set data.on_bad_row=skip to leave such rows out.",
                ) from None


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(row number from 1, row)` of a JSONL, JSON or parquet file.

    Raises:
        CurioError: the file cannot be read as what its name says.
    """
    readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    if path.is_dir() or path.suffix not in readers:
        raise CurioError(f"{path} is not a data file", f"Give a file that ends in {', '.join(readers)}.")
    count = 0
    for count, row in enumerate(readers[path.suffix](path), start=1):
        if not isinstance(row, dict):
            raise CurioError(
                f"{path}, row {count}: found {type(row).__name__}, expected an object", "Write one object a row."
            )
        yield count, row
    if not count:
        raise CurioError(f"{path} is empty", "Give a file with at least one row.")


def to_problem(row: Mapping[str, Any], default_id: str) -> Problem:
    """Read one row of any known layout.

    Raises:
        BadRow: a column is missing or has another type than expected.
    """
    question, said = _question(row)
    answer = _answer(row)
    response = said or _response(row)
    extra = row.get("extra_info")
    index = extra.get("index") if isinstance(extra, Mapping) else None
    choices = row.get("choices") or ()
    return Problem(
        id=str(row.get("id") or (f"{extra.get('split', '')}-{index}" if index is not None and extra else default_id)),
        question=question,
        answer=answer,
        source=str(row.get("source") or row.get("data_source") or ""),
        kind="choice" if choices else "math",
        choices=tuple(str(choice) for choice in choices),
        category=str(row.get("category") or ""),
        response=response.removeprefix(THINK_OPEN).lstrip("\n"),
    )


def _question(row: Mapping[str, Any]) -> tuple[str, str]:
    """The question, and the expert's response where both come in one list of messages."""
    for column in QUESTION_COLUMNS:
        if isinstance(row.get(column), str):
            return row[column], ""
    talk = row.get("messages", row.get("prompt"))
    if isinstance(talk, str):
        return talk, ""
    if talk is not None:
        said = [(turn.get("role"), turn.get("content")) for turn in talk if isinstance(turn, Mapping)]
        users = [content for role, content in said if role == "user" and isinstance(content, str)]
        experts = [content for role, content in said if role == "assistant" and isinstance(content, str)]
        if users:
            return users[-1], experts[-1] if experts else ""
        raise BadRow(f"no user message among the roles {[role for role, _ in said]}")
    raise BadRow(f"columns {sorted(row)} hold no question; expected question, problem, prompt or messages")


def _answer(row: Mapping[str, Any]) -> str:
    model = row.get("reward_model")
    if isinstance(model, Mapping) and model.get("ground_truth") is not None:
        return str(model["ground_truth"])
    for column in ANSWER_COLUMNS:
        if row.get(column) is not None:
            if isinstance(row[column], str | int | float):
                return str(row[column])
            raise BadRow(f"column {column} is a {type(row[column]).__name__}, expected text or a number")
    return ""


def _response(row: Mapping[str, Any]) -> str:
    for column in RESPONSE_COLUMNS:
        value = row.get(column)
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value and isinstance(value[-1], Mapping):
            return str(value[-1].get("content") or "")
    return ""


def _generated(source: str, kind: str, arguments: list[str]) -> Iterator[Problem]:
    if not 2 <= len(arguments) <= 3 or arguments[0] not in SPLITS or not all(n.isdigit() for n in arguments[1:]):
        raise CurioError(
            f"'{source}' is not a generator", f"Write {kind}:SPLIT:ROWS[:SEED] with SPLIT train or test."
        )
    seed = int(arguments[2]) if len(arguments) == 3 else 0
    problems = generate(arguments[0], int(arguments[1]), seed)
    yield from (noisy(problem, seed) for problem in problems) if kind == "arithmetic-forum" else problems


def _hub_rows(source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise CurioError(
            f"there is no data file {source}", "Give an existing file, a hub id OWNER/NAME, or a generator."
        )
    from datasets import load_dataset

    try:
        table = load_dataset(source, split="train")
    except Exception as error:  # the hub's client raises many kinds; each means that the data is out of reach
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CurioError(
            f"cannot load {source} from the hub: {reason}", "Check the name and the network.", MISSING
        ) from error
    yield from enumerate(table, start=1)


def _jsonl(path: Path) -> Iterator[Any]:
    with _text(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):  # noqa: B007
                if line.strip():
                    yield json.loads(line)
        except UnicodeDecodeError as error:
            raise CurioError(
                f"{path}, after line {number}: not UTF-8 ({error.reason})", "Convert the file to UTF-8."
            ) from None
        except json.JSONDecodeError as error:
            raise CurioError(f"{path}, line {number}: not JSON ({error.msg})", "Mend the line.") from None


def _json(path: Path) -> Iterator[Any]:
    with _text(path) as file:
        try:
            rows = json.load(file)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CurioError(f"{path}: not JSON ({error})", "Mend the file.") from None
    if not isinstance(rows, list):
        raise CurioError(
            f"{path} holds a {type(rows).__name__}, expected a list of objects", "Put the rows in a list."
        )
    yield from rows


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, pyarrow.ArrowIOError) as error:
        raise CurioError(
            f"{path} is not a whole parquet file: {str(error).splitlines()[0]}", "Copy it again."
        ) from None


def _text(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8")
    except OSError as error:
        raise CurioError(
            f"cannot read {path}: {error.strerror}", "Check the path and its permissions.", BAD_INPUT
        ) from None
