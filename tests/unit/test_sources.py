"""Every layout is read to the same problems, and whatever is wrong with a file is one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curiosft_cli.data.arithmetic import generate, noisy
from curiosft_cli.data.files import BadRow
from curiosft_cli.data.records import Problem
from curiosft_cli.data.sources import read_all, read_source, to_problem, to_row, with_question
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.sections import Data

QUESTION, THOUGHT = "What is $2+3$?", "Two and three.\n</think>\n\n$\\boxed{5}$"
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}
EXPERT = {"role": "assistant", "content": "<think>\n" + THOUGHT}
VERL: dict[str, Any] = {
    "data_source": "made-up",
    "prompt": [SYSTEM, USER],
    "target": [EXPERT],
    "ability": "math",
    "reward_model": {"ground_truth": "5", "style": "rule"},
    "extra_info": {"index": 7, "split": "train"},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "ours": {"id": "a", "question": QUESTION, "answer": "5", "source": "s", "response": THOUGHT},
    "verl": VERL,
    "messages": {"messages": [SYSTEM, USER, EXPERT], "answer": 5},
    "prompt and completion": {"prompt": QUESTION, "completion": "<think>\n" + THOUGHT, "answer": 5.0},
    "problem and solution": {"problem": QUESTION, "solution": THOUGHT},
    "list of golds": {"question": QUESTION, "answer": ["5"], "response": THOUGHT},
}


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def problems(source: str | Path, **options: Any) -> list[Problem]:
    return [problem for _, problem in read_source(str(source), run_dir=Path(), **options)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_problem(layout: str) -> None:
    problem = to_problem(LAYOUTS[layout], "row-1")
    assert (problem.question, problem.answer, problem.response) == (QUESTION, "5", THOUGHT)
    assert problem.kind == "math"


def test_ids_come_from_the_row_or_from_verl_or_from_the_place() -> None:
    ids = [to_problem(LAYOUTS[name], "file-3").id for name in ("ours", "verl", "messages")]
    assert ids == ["a", "train-7", "file-3"]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (
            {"prompt": [USER, EXPERT, USER], "completion": [EXPERT]},
            "found the turns user, assistant, user, expected one",
        ),
        ({"messages": [USER, EXPERT, {**USER, "content": "Thanks!"}]}, "found the turns user, assistant, user"),
        ({"messages": [EXPERT, USER]}, "found the turns assistant, user"),
        ({"messages": [USER, {"role": "tool", "content": "5"}, EXPERT]}, "found the turns user, tool, assistant"),
        ({"prompt": [USER, EXPERT], "completion": "Five."}, "found an answer there and another"),
    ],
)
def test_a_talk_of_several_turns_is_no_question_and_answer(row: dict[str, Any], found: str) -> None:
    """Else a pair that nobody wrote would be trained on in silence."""
    with pytest.raises(BadRow, match=found):
        to_problem(row, "x")


def test_an_answer_may_end_the_prompt_itself() -> None:
    assert to_problem({"prompt": [SYSTEM, USER, EXPERT]}, "x").response == THOUGHT


def test_a_column_that_no_answer_is_taken_from_may_hold_anything() -> None:
    assert to_problem({"messages": [USER, EXPERT], "solution": 5}, "x").response == THOUGHT


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_the_three_formats_hold_the_same(suffix: str, tmp_path: Path) -> None:
    rows = [VERL, {**VERL, "extra_info": {"index": 8, "split": "train"}}]
    path = tmp_path / f"data.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "json":
        path.write_text(json.dumps(rows))
    else:
        jsonl(path, *rows)
    assert problems(path) == [to_problem(row, "") for row in rows]
    assert len(read_all(Data(train=(str(path),), rows=1), run_dir=tmp_path)) == 1


def test_a_target_that_is_null_is_no_response(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist([VERL, {**VERL, "target": None}]), path)
    assert [problem.response for problem in problems(path)] == [THOUGHT, ""]


def test_rows_stream(tmp_path: Path) -> None:
    """The first row comes although a later one is broken: nothing is read ahead."""
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(LAYOUTS["ours"]) + "\nnot json\n")
    assert next(iter(read_source(str(path), run_dir=tmp_path)))[1].id == "a"


BAD_ROWS = {
    "{not json": "expected JSON",
    "[1, 2]": "found list, expected an object",
    '{"question": 5}': "column question: found int 5, expected text",
    '{"question": "  "}': "column question: found no text",
    '{"answer": "5"}': "found the columns answer; expected question, problem, prompt or messages",
    '{"question": "Q", "answer": {"a": 1}}': "column answer: found dict, expected text or a number",
    '{"question": "Q", "answer": true}': "column answer: found bool",
    '{"prompt": [{"role": "system", "content": "S"}]}': "column prompt: found no user message",
    '{"prompt": [{"role": "user", "content": null}]}': "column prompt: found a message of role user without text",
    '{"prompt": 7}': "column prompt: found int",
    '{"question": "Q", "choices": "AB", "answer": "A"}': "column choices: found 'AB', expected a list",
    '{"question": "Q", "choices": ["x", "y"], "answer": "C"}': "column answer: found 'C', expected a letter of the 2",
    '{"question": "Q", "choices": ["x", "y"], "answer": "AB"}': "column answer: found 'AB'",
    '{"question": "Q"}\x00': "found NUL bytes",
}


@pytest.mark.parametrize("line", BAD_ROWS)
def test_a_bad_row_is_named_with_what_was_found_and_expected(line: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(LAYOUTS["ours"]) + "\n" + line + "\n")
    with pytest.raises(CurioError) as error:
        problems(path)
    message = str(error.value)
    assert f"{path}, row 2: " in message
    assert BAD_ROWS[line] in message
    assert "\n" not in message
    assert error.value.exit_code == 2


def test_bad_rows_are_skipped_counted_and_listed_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([*BAD_ROWS, json.dumps(LAYOUTS["ours"])]) + "\n")
    found = read_all(Data(train=(str(path),), on_bad_row="skip"), run_dir=tmp_path)
    assert [problem.id for problem in found] == ["a"]
    assert len(found.skipped) == len(BAD_ROWS)
    assert found.skipped[2].startswith(f"{path}, row 3: column question")


def test_a_line_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(LAYOUTS["ours"]).encode() + b'\n{"question": "caf\xe9"}\n')
    with pytest.raises(CurioError, match="row 2: found byte 0xe9 at 17, expected UTF-8"):
        problems(path)


def write_truncated_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([VERL] * 50), path)
    path.write_bytes(path.read_bytes()[:-40])


BAD_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("data.jsonl", lambda path: path.touch(), "is empty"),
    "only blank lines": ("data.jsonl", lambda path: path.write_text("\n\n"), "is empty"),
    "empty list": ("data.json", lambda path: path.write_text("[]"), "is empty"),
    "one object": ("data.json", lambda path: path.write_text('{"question": "Q"}'), "holds one dict, expected a list"),
    "broken json": ("data.json", lambda path: path.write_text('[{"question"'), "is not JSON"),
    "latin json": ("data.json", lambda path: path.write_bytes(b'["\xe9"]'), "is not UTF-8 text (at byte 2)"),
    "utf-16": ("data.jsonl", lambda path: path.write_text('{"question": "Q"}\n', encoding="utf-16"), "is UTF-16 text"),
    "folder": ("data.jsonl", lambda path: path.mkdir(), "is a folder"),
    "other format": ("data.xlsx", lambda path: path.write_text("a,b"), "is a '.xlsx' file"),
    "truncated parquet": ("data.parquet", write_truncated_parquet, "is not a whole parquet file"),
    "text as parquet": ("data.parquet", lambda path: path.write_text("hello"), "is not a whole parquet file"),
    "empty parquet file": ("data.parquet", lambda path: path.touch(), "is not a whole parquet file"),
    "missing": ("data.jsonl", lambda path: None, "there is no data file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_clear_line(case: str, tmp_path: Path) -> None:
    name, make, expected = BAD_FILES[case]
    make(tmp_path / name)
    with pytest.raises(CurioError) as error:
        problems(tmp_path / name)
    assert expected in str(error.value)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_byte_order_mark_is_not_part_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(LAYOUTS["ours"]) + "\n", encoding="utf-8-sig")
    assert problems(path)[0].id == "a"


def test_sources_are_concatenated_in_order_and_cut(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"id": "1", "question": "Q"}, {"id": "2", "question": "Q"})
    found = read_all(Data(train=(str(path), "arithmetic:train:5"), rows=4), run_dir=tmp_path)
    assert [problem.id for problem in found] == ["1", "2", "arithmetic-train-0-0", "arithmetic-train-0-1"]


def test_the_generators_are_sources() -> None:
    assert problems("arithmetic:test:7:3") == generate("test", 7, 3)
    assert problems("arithmetic-forum:train:7:3") == [noisy(problem, 3) for problem in generate("train", 7, 3)]


@pytest.mark.parametrize("source", ["arithmetic", "arithmetic:train", "arithmetic:dev:5", "arithmetic:train:x"])
def test_a_misspelt_generator_is_refused(source: str) -> None:
    with pytest.raises(CurioError, match="SPLIT:ROWS"):
        problems(source)


def test_cleaned_questions_are_those_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(CurioError, match="curiosft rephrase"):
        list(read_source("rephrase", run_dir=tmp_path))
    (tmp_path / "rephrase").mkdir()
    jsonl(tmp_path / "rephrase" / "questions.jsonl", {"id": "9", "question": "clean", "original_question": "noisy"})
    assert [problem.question for _, problem in read_source("rephrase", run_dir=tmp_path)] == ["clean"]


def test_a_hub_data_set_that_is_out_of_reach_is_a_missing_service(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(CurioError, match="cannot load someone/some-data from the hub: no route") as error:
        problems("someone/some-data")
    assert error.value.exit_code == 3
    assert "\n" not in str(error.value)


def test_a_hub_data_set_is_read_by_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [VERL])
    assert problems("someone/some-data") == [to_problem(VERL, "")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_question_changes_nothing_else(layout: str) -> None:
    row = LAYOUTS[layout]
    changed = with_question(row, "Clean?")
    before, after = to_problem(row, "x"), to_problem(changed, "x")
    assert after.question == "Clean?"
    assert (after.answer, after.response, after.id) == (before.answer, before.response, before.id)
    assert changed.keys() == row.keys()
    assert before.question == QUESTION


def test_our_own_layout_round_trips() -> None:
    for problem in generate("train", 20):
        assert to_problem(to_row(problem), "other") == problem
