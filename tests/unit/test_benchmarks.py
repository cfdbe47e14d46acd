"""The benchmark table, local files in both layouts, repetitions, and the hub's columns."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from command import last_of_each
from pyarrow import parquet

from curiosft_cli.data.benchmarks import (
    ARITHMETIC_ROWS,
    BENCHMARKS,
    HubDataset,
    hub_row,
    shuffled,
    split_choices,
)
from curiosft_cli.data.benchmarks import (
    load_benchmark as load_from,
)
from curiosft_cli.data.files import BadRow
from curiosft_cli.data.prompts import messages
from curiosft_cli.data.records import Problem
from curiosft_cli.evaluation.tasks import load_tasks
from curiosft_cli.run.config import load as config
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.sections import Eval
from curiosft_cli.stages.step_evaluation import benchmarks_between_steps

REAL = os.environ.get("CURIOSFT_BENCHMARKS")
needs_real = pytest.mark.skipif(not REAL, reason="CURIOSFT_BENCHMARKS names no folder with the benchmarks' rows")
COUNTS = {
    "aime24": 30, "aime25": 30, "amc": 83, "math500": 500, "minerva": 272, "olympiadbench": 675,
    "gpqa_diamond": 198, "arc_challenge": 1172,
}  # fmt: skip


def verl(source: str, question: str, gold: str, index: int = 0) -> dict[str, Any]:
    return {
        "data_source": source,
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": question}],
        "reward_model": {"ground_truth": gold, "style": "rule"},
        "extra_info": {"index": index, "split": "default"},
    }


def read(name: str, data: str | None = None, *, limit: int | None = None, **settings: Any) -> list[Problem]:
    """The questions of a benchmark, from a file if one is given."""
    files = {} if data is None else {name: data}
    return load_from(name, Eval(data=files, **settings), limit=limit)


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_suites_and_samples_are_the_papers() -> None:
    suites = {suite: [name for name, one in BENCHMARKS.items() if one.suite == suite] for suite in ("id", "ood")}
    assert suites == {
        "id": ["aime24", "aime25", "amc", "math500", "minerva", "olympiadbench"],
        "ood": ["gpqa_diamond", "arc_challenge", "mmlu_pro"],
    }
    assert {name: one.samples for name, one in BENCHMARKS.items() if one.samples != 8} == {"mmlu_pro": 1}
    assert [name for name, one in BENCHMARKS.items() if one.kind == "choice"] == suites["ood"]


def test_a_misspelt_benchmark_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(CurioError, match="did you mean 'aime24'"):
        read("aime2024")


def test_arithmetic_is_built_in() -> None:
    problems = read("arithmetic")
    assert len(problems) == ARITHMETIC_ROWS == len({problem.id for problem in problems})
    assert read("arithmetic", limit=5) == problems[:5]


def test_a_verl_file_is_filtered_and_repetitions_are_taken_once(tmp_path: Path) -> None:
    rows = [verl("aime", f"Question {n}?", str(n), n) for n in range(3)] * 4 + [verl("amc", "Another?", "9")]
    path = write(tmp_path / "valid.jsonl", *rows)
    found = [(problem.question, problem.answer) for problem in read("aime24", path)]
    assert found == [("Question 0?", "0"), ("Question 1?", "1"), ("Question 2?", "2")]
    assert [problem.question for problem in read("amc", path)] == ["Another?"]


def test_a_files_own_system_message_is_kept_only_when_asked_for(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q?"}]
    path = write(tmp_path / "data.jsonl", {"prompt": turns, "answer": "1"}, {"question": "R?", "answer": "2"})
    assert [problem.system for problem in read("aime24", path)] == ["", ""]
    kept = read("aime24", path, keep_system=True)
    assert [problem.system for problem in kept] == ["Be brief.", ""]
    assert [messages(problem, system="Ours.", prefix="")[0]["content"] for problem in kept] == ["Be brief.", "Ours."]


def test_a_file_without_the_benchmark_says_what_it_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "valid.jsonl", verl("aime", "Q?", "1"), verl("amc", "R?", "2"))
    with pytest.raises(CurioError, match="no row of 'math500', its data_source is one of aime, amc"):
        read("math500", path)


def test_ids_that_collide_are_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", verl("aime", "Q?", "1"), verl("aime", "R?", "2"))
    assert [problem.id for problem in read("aime24", path)] == ["aime24-0000", "aime24-0001"]


def test_one_question_with_two_answers_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", verl("aime", "Q?", "1", 0), verl("aime", " Q? ", "2", 1))
    with pytest.raises(CurioError, match="two answers, '1' and '2'"):
        read("aime24", path)


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("math500", {"question": "Q?"}, "column answer: found nothing"),
        ("math500", {"question": "Q?", "answer": "A", "choices": ["x", "y"]}, "expected one of kind math"),
        ("mmlu_pro", {"question": "Q?", "answer": "A"}, "expected one of kind choice"),
        ("math500", {"answer": "A"}, "expected question"),
    ],
)
def test_a_row_of_another_kind_is_refused(name: str, row: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(CurioError, match=f"row 1: .*{expected}"):
        read(name, write(tmp_path / "data.jsonl", row))


def test_choices_are_split_off_a_prompt(tmp_path: Path) -> None:
    asked = "Pick one.\n\nWhich?\n\nA) x^2\nB) two\nlines\nC) 3\nD) A) no"
    problem = read("gpqa_diamond", write(tmp_path / "gpqa.jsonl", verl("gpqa", asked, "B")))[0]
    assert (problem.question, problem.answer) == ("Pick one.\n\nWhich?", "B")
    assert problem.choices == ("x^2", "two\nlines", "3", "A) no")


@pytest.mark.parametrize("text", ["No options at all", "A) alone", "B) x\nA) y", "A) x\nC) y", "A. Point A. is\nhere"])
def test_what_is_no_list_of_choices_stays(text: str) -> None:
    assert split_choices(text) == (text, ())


def hub(name: str) -> HubDataset:
    found = BENCHMARKS[name].hub
    assert found
    return found


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("amc", {"problem": "Q?", "answer": 142.0, "id": 3, "url": "u"}, {"answer": 142.0}),
        ("olympiadbench", {"question": "Q?", "final_answer": ["$3$", "$11$"]}, {"answer": ["$3$", "$11$"]}),
        (
            "arc_challenge",
            {"question": "Q?", "choices": {"text": ["p", "q", "r"], "label": ["1", "2", "3"]}, "answerKey": "3"},
            {"answer": "C", "choices": ["p", "q", "r"]},
        ),
        (
            "mmlu_pro",
            {"question": "Q?", "options": ["p", "q"], "answer": "B", "answer_index": 1, "category": "law"},
            {"answer": "B", "choices": ["p", "q"], "category": "law"},
        ),
    ],
)
def test_hub_rows_come_into_our_layout(name: str, row: dict[str, Any], expected: dict[str, Any]) -> None:
    assert hub_row(row, hub(name)) == {"question": "Q?", "source": hub(name).name, **expected}


def test_gpqa_choices_are_shuffled_the_same_everywhere() -> None:
    row = {"Question": "Q?", "Correct Answer": "right\n", **{f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)}}
    ours = hub_row(row, hub("gpqa_diamond"))
    assert not isinstance(ours, BadRow)
    assert sorted(ours["choices"]) == ["right", "wrong 1", "wrong 2", "wrong 3"]
    assert ours["choices"]["ABCD".index(ours["answer"])] == "right"
    places = {shuffled(["r", "a", "b", "c"], f"Question {n}").index("r") for n in range(50)}
    assert places == {0, 1, 2, 3}
    assert shuffled(["r", "a", "b", "c"], "Q") == shuffled(["c", "b", "a", "r"], "Q")


def test_a_hub_row_that_lacks_a_column_says_so() -> None:
    row = hub_row({"question": "Q?", "answer": "1"}, hub("math500"))
    assert isinstance(row, BadRow)
    assert "expected problem" in str(row)


@pytest.mark.parametrize("name", [name for name, one in BENCHMARKS.items() if one.hub])
def test_a_benchmark_of_the_hub_asks_for_its_split_and_revision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(*names: object, **options: object) -> list[dict[str, Any]]:
        asked.append((names, options))
        return []

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(CurioError, match="has no rows"):
        read(name)
    assert asked == [((hub(name).name, hub(name).config), {"split": hub(name).split, "revision": hub(name).revision})]


def own(folder: Path, file: str, content: str | bytes, *overrides: str) -> list[Problem]:
    """The questions of the benchmark `mine`, from a file with this content."""
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    chosen = last_of_each(f"eval.data.mine={folder / file}", "eval.benchmarks=mine", *overrides)
    return load_tasks(config("curio", chosen).config)[0].problems


@pytest.mark.parametrize(
    ("file", "content", "columns", "expected"),
    [
        ("a.jsonl", '{"question": "1+1?", "answer": 2}', [], ("1+1?", "2", ())),
        (
            "a.csv",
            "Frage;L\u00f6sung\n1;5?;3\n".replace("1;5?", '"1;5?"'),
            ["question=Frage", "answer=L\u00f6sung"],
            ("1;5?", "3", ()),
        ),
        ("a.csv", "\ufeffq\ttarget\n1?\t4.50\n", ["question=q", "answer=target"], ("1?", "4.50", ())),
        (
            "a.csv",
            "q,x,y,z,r\nP?,u,v,,B\n",
            ["question=q", 'choices=["x","y","z"]', "answer=r"],
            ("P?", "B", ("u", "v")),
        ),
        ("a.csv", 'question,o,answer\nP?,"[""u"", ""v""]",v\n', ["choices=o"], ("P?", "B", ("u", "v"))),
        ("a.json", '[{"question": "P?\\nA) u\\nB) v", "answer": "B"}]', [], ("P?", "B", ("u", "v"))),
        ("a.jsonl", '{"question": "P?", "answer": "7", "choices": ["6", "7"]}', ["kind=math"], ("P?", "7", ())),
    ],
)
def test_own_benchmarks_are_read_from_any_columns(
    tmp_path: Path, file: str, content: str, columns: list[str], expected: tuple[Any, ...]
) -> None:
    [problem] = own(tmp_path, file, content, *(f"eval.bench.mine.{column}" for column in columns))
    assert (problem.question, problem.answer, problem.choices) == expected
    assert problem.kind == ("choice" if expected[2] else "math")


def test_an_own_parquet_file_and_number_of_samples(tmp_path: Path) -> None:
    table = pa.table({"input": ["1?", "2?"], "target": [Decimal("2.50"), Decimal("4.00")], "id": [7, 8]})
    parquet.write_table(table, tmp_path / "a.parquet")
    named = ["eval.bench.mine.question=input", "eval.bench.mine.answer=target", "eval.bench.mine.samples=3"]
    file = [f"eval.data.mine={tmp_path / 'a.parquet'}", "eval.benchmarks=arithmetic", "sft.eval_benchmarks=mine"]
    found = config("curio", [*file, *named]).config
    [task] = benchmarks_between_steps(found, found.sft)
    assert (task.name, task.samples) == ("mine", 3)
    assert [(problem.id, problem.answer) for problem in task.problems] == [("7", "2.50"), ("8", "4.00")]


@pytest.mark.parametrize(
    ("file", "content", "overrides", "said"),
    [
        (
            "a.csv",
            "q,a\n1?,2\n",
            [],
            "row 1: found the columns a, q; expected question.*eval.bench.mine.question=COLUMN",
        ),
        ("a.csv", "q,a\n1?,2\n", ["eval.bench.mine.answer=b"], "expected b"),
        ("a.csv", "question,answer\n1?,2\n2?,3,4\n", [], "row 2: found 3 cells, expected 2"),
        ("a.csv", 'question,answer\n1?,"2\n', [], "is not CSV .after row 0.: unexpected end of data"),
        ("a.csv", "question,question\n1?,2\n", [], "two columns 'question'"),
        ("a.csv", "question,answer\ngro\u00df?,2\n".encode("latin1"), [], "is not UTF-8 text"),
        ("a.csv", "question,answer\n1?,\n", [], "row 1: column answer: found nothing"),
        ("a.csv", "question,answer\n", [], "is empty"),
        (
            "a.csv",
            "question,o,answer\nP?,u/v,A\n",
            ["eval.bench.mine.choices=o"],
            "found 'u/v', expected a list as JSON",
        ),
        ("a.jsonl", '{"question": "1?", "answer": NaN}', [], "column answer: found nan"),
        ("a.jsonl", '{"question": "1?", "answer": 2}\n{"quest', [], "row 2: found"),
        (
            "a.jsonl",
            '{"id": 1, "question": "1?", "answer": 2}\n{"id": 1, "question": "2?", "answer": 2}',
            [],
            "the id '1'",
        ),
        ("a.jsonl", '{"question": "1?", "answer": 2}\n{"question": "1?", "answer": 3}', [], "two answers, '2' and '3'"),
        ("a.jsonl", '{"question": "1?", "answer": 2}', ["eval.bench.math500.samples=2"], "is a shipped benchmark"),
        ("a.jsonl", '{"question": "1?", "answer": 2}', ["eval.bench.mien.samples=2"], "did you mean 'mine'"),
        ("a.jsonl", '{"question": "1?", "answer": 2}', ["eval.data.mien=x.csv"], "did you mean 'mine'"),
        (
            "a.jsonl",
            '{"question": "1?", "answer": 2}',
            ["eval.bench.mine.sample=2"],
            "eval.bench.mine.sample'.*'samples'",
        ),
        ("a.txt", "1", [], "expected a data file"),
        ("a.csv", "question,answer\n1\0?,2\n", [], "row 1: found NUL characters"),
        ("a.jsonl", '{"question": "1? \\ud800", "answer": 2}', [], "row 1: found NUL characters or half"),
        (
            "a.jsonl",
            '{"question": "1?", "answer": 2}',
            ['eval.benchmarks=["mine", "AIME24"]', "eval.data.AIME24=x"],
            "'aime24'",
        ),
    ],
)
def test_a_bad_own_benchmark_is_refused_in_one_line(
    tmp_path: Path, file: str, content: str | bytes, overrides: list[str], said: str
) -> None:
    with pytest.raises(CurioError, match=said):
        own(tmp_path, file, content, *overrides)


def test_a_name_without_a_file_and_a_bad_name_are_refused() -> None:
    with pytest.raises(CurioError, match=r"'mine' does not exist and has no file.*eval.data.mine=FILE"):
        load_tasks(config("curio", ["eval.benchmarks=mine"]).config)
    for name in ("../x", "a b", "-x", "x" * 65, "\u00e9"):
        with pytest.raises(CurioError, match="at most 64 letters"):
            config("curio", [f'eval.data={{"{name}" = "a.csv"}}'])


@needs_real
@pytest.mark.parametrize("name", COUNTS)
def test_the_real_rows_are_read_whole(name: str) -> None:
    problems = read(name, f"{REAL}/{name}.jsonl")
    assert len(problems) == COUNTS[name] == len({problem.id for problem in problems})
    assert {problem.kind for problem in problems} == {BENCHMARKS[name].kind}


@needs_real
@pytest.mark.parametrize("name", ["aime24", "amc", "math500", "minerva", "olympiadbench"])
def test_a_real_verl_file_holds_the_same_questions(name: str) -> None:
    held = Path(str(REAL)).parent / "verl_sample.parquet"
    if not held.exists():
        pytest.skip("there is no verl_sample.parquet beside the benchmarks' rows")
    ours, theirs = read(name, f"{REAL}/{name}.jsonl"), read(name, str(held))
    assert {problem.question.strip() for problem in theirs} == {problem.question.strip() for problem in ours}
