"""Every layout of training data becomes the same problem; what cannot be read is one line with file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.sections import Data
from curiosft_cli.tasks.records import Problem
from curiosft_cli.tasks.sources import read_all

USER = {"role": "user", "content": "1+1?"}
EXPERT = {"role": "assistant", "content": "<think>\nadd</think>\\boxed{2}"}
LAYOUTS: dict[str, dict[str, Any]] = {
    "own": {"question": "1+1?", "answer": "2", "response": "add</think>\\boxed{2}"},
    "problem": {"problem": "1+1?", "answer": "2", "solution": "<think>\nadd</think>\\boxed{2}"},
    "messages": {"messages": [{"role": "system", "content": "x"}, USER, EXPERT], "answer": "2"},
    "prompt": {"prompt": "1+1?", "completion": "<think>\nadd</think>\\boxed{2}", "answer": "2"},
    "verl": {
        "data_source": "",
        "prompt": [{"role": "system", "content": "x"}, USER],
        "target": [EXPERT],
        "reward_model": {"ground_truth": "2", "style": "rule"},
        "extra_info": {"index": 0, "split": "default"},
    },
}


def read(path: Path, **settings: Any) -> list[Problem]:
    return read_all(Data(train=(str(path),), **settings), run_dir=path.parent)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_every_layout_gives_the_same_problem(tmp_path: Path, layout: str, suffix: str) -> None:
    path = tmp_path / f"data.{suffix}"
    if suffix == "jsonl":
        write(path, LAYOUTS[layout])
    elif suffix == "json":
        path.write_text(json.dumps([LAYOUTS[layout]]))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([LAYOUTS[layout]]), path)
    [problem] = read(path)
    assert (problem.question, problem.answer, problem.response) == ("1+1?", "2", "add</think>\\boxed{2}")
    assert problem.kind == "math"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"question": "a"}\n{"question": 3}\n', "row 2"),
        ("b.jsonl", b'{"question": "a"}\n{"quest', "row 2"),
        ("c.jsonl", b'{"question": "\xff\xfe"}\n', "UTF-8"),
        ("d.jsonl", b"", "empty"),
        ("e.parquet", b"PAR1 and no more", "parquet"),
        ("f.jsonl", b'{"text": "no question"}\n', "row 1"),
        ("g.csv", b"a,b", ".jsonl"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CurioError) as caught:
        read(path)
    message = str(caught.value)
    assert said in message
    assert name in message
    assert "\n" not in message


def test_bad_rows_can_be_left_out_and_are_reported(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", {"question": "a", "answer": "1"}, {"question": 3}, {"question": "b", "answer": "2"}
    )
    problems = read_all(Data(train=(str(path),), on_bad_row="skip"), run_dir=tmp_path)
    assert [problem.question for problem in problems] == ["a", "b"]
    assert len(problems.skipped) == 1
    assert "2" in problems.skipped[0]


def test_sources_are_joined_in_order_and_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "a", "answer": "1"})
    both = read_all(Data(train=(str(path), "arithmetic:train:5"), rows=3), run_dir=tmp_path)
    assert len(both) == 3
    assert both[0].question == "a"


@pytest.mark.parametrize("source", ["arithmetic:train", "arithmetic:exam:5", "arithmetic:train:many", "nowhere.jsonl"])
def test_a_source_that_does_not_exist(tmp_path: Path, source: str) -> None:
    with pytest.raises(CurioError) as caught:
        read_all(Data(train=(source,)), run_dir=tmp_path)
    assert source.split(":")[0] in str(caught.value)
