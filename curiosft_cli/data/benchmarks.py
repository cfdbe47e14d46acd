"""The table of benchmarks (source, kind of answer, samples per question), and how their questions are loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from curiosft_cli.data.arithmetic import generate
from curiosft_cli.data.files import BadRow, FileRow, read_rows
from curiosft_cli.data.hub import hub_rows
from curiosft_cli.data.records import AnswerKind, Problem
from curiosft_cli.data.sources import BROKEN_TEXT, MESSAGE_COLUMNS, RESPONSE_COLUMNS, to_problem
from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.run.sections import Eval, OwnBenchmark

ARITHMETIC_ROWS = 200


@dataclass(frozen=True)
class HubDataset:
    """A benchmark's data set on the hub, and its columns.

    Attributes:
        name: the data set's id.
        split: its split.
        question: column of the question.
        answer: column of the gold, or of the right choice's text if `wrong` is given.
        config: its configuration; None is the default one.
        revision: the pinned commit; None is the newest.
        choices: column of the options (a list, or labels and texts).
        wrong: columns of the wrong choices' texts, if each choice has its own column.
        category: column of the category.
    """

    name: str
    split: str
    question: str
    answer: str
    config: str | None = None
    revision: str | None = None
    choices: str = ""
    wrong: tuple[str, ...] = ()
    category: str = ""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        kind: free-form answers ("math") or multiple choice ("choice"); None in a user's own: the first row shows it.
        samples: completions per question (Section 5).
        suite: "id" or "ood", the two averages of the paper; "none" if it is in neither.
        hub: where the questions come from; None is the built-in generator.
        data_sources: names of this benchmark in the column `data_source` of a verl file with several sets.
        own: the columns of a user's own benchmark.
    """

    kind: AnswerKind | None
    samples: int
    suite: Literal["id", "ood", "none"]
    hub: HubDataset | None = None
    data_sources: tuple[str, ...] = ()
    own: OwnBenchmark | None = None


BENCHMARKS: dict[str, Benchmark] = {
    "aime24": Benchmark(
        "math",
        8,
        "id",
        HubDataset(
            "HuggingFaceH4/aime_2024",
            "train",
            "problem",
            "answer",
            revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        ),
        ("aime", "aime24"),
    ),
    "aime25": Benchmark(
        "math",
        8,
        "id",
        HubDataset("math-ai/aime25", "test", "problem", "answer", revision="563bb8404243c5f09de6ec262f2db674fe5bce9b"),
        ("aime25",),
    ),
    # The paper's AMC numbers are multiples of 1/(8 x 83): the 83 problems of AMC 12, 2022 and 2023.
    "amc": Benchmark("math", 8, "id", HubDataset("AI-MO/aimo-validation-amc", "train", "problem", "answer"), ("amc",)),
    "amc23": Benchmark(
        "math",
        8,
        "none",
        HubDataset("math-ai/amc23", "test", "question", "answer", revision="80815d37005feb82cd7f8fbc6901d5d3eff43057"),
        ("amc23",),
    ),
    "math500": Benchmark(
        "math",
        8,
        "id",
        HubDataset(
            "HuggingFaceH4/MATH-500",
            "test",
            "problem",
            "answer",
            category="subject",
            revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        ),
        ("math",),
    ),
    "minerva": Benchmark(
        "math", 8, "id", HubDataset("math-ai/minervamath", "test", "question", "answer"), ("minerva",)
    ),
    "olympiadbench": Benchmark(
        "math", 8, "id", HubDataset("math-ai/olympiadbench", "test", "question", "final_answer"), ("olympiad_bench",)
    ),
    "gpqa_diamond": Benchmark(
        "choice",
        8,
        "ood",
        HubDataset(
            "Idavidrein/gpqa",
            "train",
            "Question",
            "Correct Answer",
            config="gpqa_diamond",
            wrong=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
        ),
        ("gpqa",),
    ),
    "arc_challenge": Benchmark(
        "choice",
        8,
        "ood",
        HubDataset(
            "allenai/ai2_arc",
            "test",
            "question",
            "answerKey",
            config="ARC-Challenge",
            choices="choices",
            revision="210d026faf9955653af8916fad021475a3f00453",
        ),
        ("arc_c",),
    ),
    "mmlu_pro": Benchmark(
        "choice",
        1,
        "ood",
        HubDataset("TIGER-Lab/MMLU-Pro", "test", "question", "answer", choices="options", category="category"),
        ("mmlu_pro",),
    ),
    "arithmetic": Benchmark("math", 8, "none"),
}


def find_benchmark(name: str, settings: Eval) -> Benchmark:
    """A row of `BENCHMARKS`, or the benchmark of the user's own for which `[eval]` has a file.

    Raises:
        CurioError: there is none.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if name.lower() in BENCHMARKS or name not in settings.data:
        close = nearest(name.lower(), BENCHMARKS)
        raise CurioError(
            f"benchmark '{name}' does not exist" + ("" if name in settings.data else " and has no file"),
            f"{close}{'' if close.endswith('?') else '.'} A benchmark of your own needs a file: eval.data.{name}=FILE.",
        )
    own = settings.bench.get(name, OwnBenchmark())
    return Benchmark(None if own.kind == "auto" else own.kind, own.samples, "none", own=own)


def load_benchmark(name: str, settings: Eval, *, limit: int | None = None) -> list[Problem]:
    """The questions of a benchmark, without repetitions, each with its own id.

    Args:
        name: a key of `BENCHMARKS`, or the user's own.
        settings: names files and columns, and says whether system messages are kept.
        limit: number of questions, from the first on; None is all.

    Raises:
        CurioError: the benchmark does not exist or is out of reach, a row cannot be read, one question has two answers,
            or two questions have one id.
    """
    benchmark, data = find_benchmark(name, settings), settings.data.get(name)
    if data is not None:
        problems = _from_file(Path(data), name, benchmark, settings.keep_system)
    elif benchmark.hub is None:
        problems = generate("test", ARITHMETIC_ROWS)
    else:
        problems = list(_from_hub(benchmark.hub, name))
    if not problems:
        raise CurioError(f"benchmark '{name}' has no rows", f"Give a file: eval.data.{name}=FILE.")
    problems = unique(problems, name)
    if benchmark.own and (same := [id_ for id_, count in Counter(p.id for p in problems).items() if count > 1]):
        raise CurioError(f"{data}: two questions have the id '{same[0]}'", "Give each question an id of its own.")
    return distinct_ids(problems, name)[:limit]


def unique(problems: Iterable[Problem], name: str) -> list[Problem]:
    """Drop repetitions of a question.

    Raises:
        CurioError: the same question has two different answers.
    """
    first: dict[tuple[str, tuple[str, ...]], Problem] = {}
    for problem in problems:
        known = first.setdefault((problem.question.strip(), problem.choices), problem)
        if known.answer != problem.answer:
            raise CurioError(
                f"{name}: the question of rows {known.id} and {problem.id} has two answers, "
                f"'{known.answer}' and '{problem.answer}'",
                "Correct the data: one question has one answer.",
            )
    return list(first.values())


def distinct_ids(problems: list[Problem], name: str) -> list[Problem]:
    """The problems; if two have the same id, all are numbered."""
    if len({problem.id for problem in problems}) == len(problems):
        return problems
    return [replace(problem, id=f"{name}-{number:04d}") for number, problem in enumerate(problems)]


def split_choices(question: str) -> tuple[str, tuple[str, ...]]:
    """Separate a question from the lettered options at its end: `A) ...`, `(A) ...` or `A. ...`, one per line."""
    starts = [
        match
        for match in re.finditer(r"(?m)^[ \t]*\(?([A-Z])[).:][ \t]+", question)
        if match[1] in ascii_uppercase[: question.count("\n") + 1]
    ]
    for first in reversed([index for index, match in enumerate(starts) if match[1] == "A"]):
        options = starts[first:]
        if len(options) > 1 and "".join(match[1] for match in options) == ascii_uppercase[: len(options)]:
            ends = [match.start() for match in options[1:]] + [len(question)]
            texts = [question[match.end() : end].strip() for match, end in zip(options, ends, strict=True)]
            return question[: options[0].start()].rstrip(), tuple(texts)
    return question, ()


def _from_file(path: Path, name: str, benchmark: Benchmark, keep_system: bool) -> list[Problem]:
    """The problems of a file. If a verl file holds several sets, only those of this benchmark."""
    rows = list(read_rows(path))
    if benchmark.own:
        rows = [(number, _own_columns(row, benchmark.own)) for number, row in rows]
        benchmark = benchmark if benchmark.kind else replace(benchmark, kind=_kind_of(rows[0][1]))
    held = {str(row.get("data_source")) for _, row in rows if isinstance(row, Mapping) and "data_source" in row}
    if len(held) > 1 and not benchmark.own:
        wanted = {name, *benchmark.data_sources}
        rows = [item for item in rows if isinstance(item[1], BadRow) or item[1].get("data_source") in wanted]
        if not rows:
            raise CurioError(
                f"{path} has no row of '{name}', its data_source is one of {', '.join(sorted(held))}",
                f"Give another file: eval.data.{name}=FILE.",
            )
    problems = [_problem(row, f"{path}, row {number}", f"{name}-{number - 1:04d}", benchmark) for number, row in rows]
    if not keep_system:
        return problems
    return [replace(problem, system=_system(row)) for problem, (_, row) in zip(problems, rows, strict=True)]


def _kind_of(row: FileRow | BadRow) -> AnswerKind:
    """What a row of a user's own benchmark asks for."""
    if isinstance(row, BadRow):
        return "math"
    try:
        problem = to_problem({**row, "choices": []}, "")
    except BadRow:
        return "math"
    listed = split_choices(problem.question)[1] if problem.answer in tuple(ascii_uppercase) else ()
    return "choice" if row.get("choices") or listed else "math"


def _own_columns(row: FileRow | BadRow, own: OwnBenchmark) -> FileRow | BadRow:
    """A row of a user's own benchmark with the columns `question`, `answer` and `choices`, where others were named."""
    if isinstance(row, BadRow):
        return row
    if missing := [column for column in (own.question, own.answer, *own.choices) if column and column not in row]:
        return BadRow(f"found the columns {', '.join(sorted(map(str, row)))}; expected {', '.join(missing)}")
    unread = ("reward_model", *RESPONSE_COLUMNS) if own.answer else ()
    ours = {column: value for column, value in row.items() if column not in unread}
    if own.kind == "math":
        ours.pop("choices", None)
    ours |= {key: row[column] for key, column in (("question", own.question), ("answer", own.answer)) if column}
    if len(own.choices) > 1:
        ours["choices"] = [str(row[column]) for column in own.choices if row[column] is not None]
    elif own.choices:
        ours["choices"] = row[own.choices[0]]
    if isinstance(listed := ours.get("choices"), str):  # a cell of CSV holds text alone
        try:
            ours["choices"] = json.loads(listed)
        except (ValueError, RecursionError):
            return BadRow(f"column choices: found {listed[:40]!r}, expected a list as JSON")
    if isinstance(listed := ours.get("choices"), list | tuple):
        texts = [str(text) for text in listed]
        ours["choices"], right = texts, str(ours.get("answer"))
        if right not in tuple(ascii_uppercase[: len(texts)]) and texts.count(right) == 1:
            ours["answer"] = ascii_uppercase[texts.index(right)]
    return ours


def _system(row: FileRow | BadRow) -> str:
    """The system message of a row that holds a list of messages."""
    lists = (row[name] for name in MESSAGE_COLUMNS if isinstance(row, Mapping) and isinstance(row.get(name), list))
    return next((str(turn["content"]) for turns in lists for turn in turns if turn.get("role") == "system"), "")


def _problem(row: FileRow | BadRow, place: str, default_id: str, benchmark: Benchmark) -> Problem:
    """One row as a problem of this benchmark's kind.

    Raises:
        CurioError: the row does not hold one.
    """
    try:
        if isinstance(row, BadRow):
            raise row
        problem = to_problem(row, default_id)
        if benchmark.kind == "choice" and not problem.choices:
            question, choices = split_choices(problem.question)
            problem = to_problem({**row, "question": question, "choices": list(choices)}, default_id)
        if problem.kind != benchmark.kind:
            raise BadRow(f"found a question with {len(problem.choices)} choices, expected one of kind {benchmark.kind}")
        if not problem.answer.strip():
            raise BadRow("column answer: found nothing, expected the gold")
        if BROKEN_TEXT.search("\n".join((problem.id, problem.question, problem.answer, *problem.choices))):
            raise BadRow("found NUL characters or half characters, expected Unicode text")
    except BadRow as error:
        fix = "Correct the row: a benchmark with a bad row is not used."
        if benchmark.own:
            name = default_id.rpartition("-")[0]
            fix = f"Correct the row, or name the columns: eval.bench.{name}.question=COLUMN, answer and choices."
        raise CurioError(f"{place}: {error}", fix) from None
    return problem


def _from_hub(hub: HubDataset, name: str) -> Iterator[Problem]:
    rows = hub_rows(hub.name, split=hub.split, config=hub.config, revision=hub.revision)
    for number, row in rows:
        yield _problem(hub_row(row, hub), f"{hub.name}, row {number}", f"{name}-{number - 1:04d}", BENCHMARKS[name])


def hub_row(row: Mapping[str, Any], hub: HubDataset) -> FileRow | BadRow:
    """A hub's row in our own layout."""
    missing = [column for column in (hub.question, hub.answer, hub.choices, *hub.wrong) if column and column not in row]
    if missing:
        return BadRow(f"found the columns {', '.join(sorted(row))}; expected {', '.join(missing)}")
    ours: FileRow = {"question": row[hub.question], "answer": row[hub.answer], "source": hub.name}
    if hub.category:
        ours["category"] = row.get(hub.category) or ""
    if hub.wrong:
        right = str(row[hub.answer]).strip()
        texts = shuffled([right, *(str(row[column]).strip() for column in hub.wrong)], str(row[hub.question]))
        ours |= {"choices": texts, "answer": ascii_uppercase[texts.index(right)]}
    elif isinstance(options := row.get(hub.choices), Mapping):
        ours["choices"] = list(options["text"])
        ours["answer"] = ascii_uppercase[list(options["label"]).index(row[hub.answer])]
    elif options is not None:
        ours["choices"] = list(options)
    return ours


def shuffled(texts: list[str], question: str) -> list[str]:
    """The texts in an order that depends only on them and on the question: the same on every machine."""
    return sorted(texts, key=lambda text: hashlib.sha256(f"{question}\n{text}".encode()).digest())
