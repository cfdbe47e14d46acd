"""The benchmark table, local files in both layouts, repetitions, and the hub's columns."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from curiosft_cli.data.benchmarks import (
    ARITHMETIC_ROWS,
    BENCHMARKS,
    HubDataset,
    hub_row,
    load_benchmark,
    shuffled,
    split_choices,
)
from curiosft_cli.data.files import BadRow
from curiosft_cli.data.prompts import messages
from curiosft_cli.run.errors import CurioError

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
        load_benchmark("aime2024")


def test_arithmetic_is_built_in() -> None:
    problems = load_benchmark("arithmetic")
    assert len(problems) == ARITHMETIC_ROWS == len({problem.id for problem in problems})
    assert load_benchmark("arithmetic", limit=5) == problems[:5]


def test_a_verl_file_is_filtered_and_repetitions_are_taken_once(tmp_path: Path) -> None:
    rows = [verl("aime", f"Question {n}?", str(n), n) for n in range(3)] * 4 + [verl("amc", "Another?", "9")]
    path = write(tmp_path / "valid.jsonl", *rows)
    found = [(problem.question, problem.answer) for problem in load_benchmark("aime24", data=path)]
    assert found == [("Question 0?", "0"), ("Question 1?", "1"), ("Question 2?", "2")]
    assert [problem.question for problem in load_benchmark("amc", data=path)] == ["Another?"]


def test_a_files_own_system_message_is_kept_only_when_asked_for(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q?"}]
    path = write(tmp_path / "data.jsonl", {"prompt": turns, "answer": "1"}, {"question": "R?", "answer": "2"})
    assert [problem.system for problem in load_benchmark("aime24", data=path)] == ["", ""]
    kept = load_benchmark("aime24", data=path, keep_system=True)
    assert [problem.system for problem in kept] == ["Be brief.", ""]
    assert [messages(problem, system="Ours.", prefix="")[0]["content"] for problem in kept] == ["Be brief.", "Ours."]


def test_a_file_without_the_benchmark_says_what_it_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "valid.jsonl", verl("aime", "Q?", "1"), verl("amc", "R?", "2"))
    with pytest.raises(CurioError, match="no row of 'math500', its data_source is one of aime, amc"):
        load_benchmark("math500", data=path)


def test_ids_that_collide_are_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", verl("aime", "Q?", "1"), verl("aime", "R?", "2"))
    assert [problem.id for problem in load_benchmark("aime24", data=path)] == ["aime24-0000", "aime24-0001"]


def test_one_question_with_two_answers_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", verl("aime", "Q?", "1", 0), verl("aime", " Q? ", "2", 1))
    with pytest.raises(CurioError, match="two answers, '1' and '2'"):
        load_benchmark("aime24", data=path)


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
        load_benchmark(name, data=write(tmp_path / "data.jsonl", row))


def test_choices_are_split_off_a_prompt(tmp_path: Path) -> None:
    asked = "Pick one.\n\nWhich?\n\nA) x^2\nB) two\nlines\nC) 3\nD) A) no"
    problem = load_benchmark("gpqa_diamond", data=write(tmp_path / "gpqa.jsonl", verl("gpqa", asked, "B")))[0]
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
        load_benchmark(name)
    assert asked == [((hub(name).name, hub(name).config), {"split": hub(name).split, "revision": hub(name).revision})]


@needs_real
@pytest.mark.parametrize("name", COUNTS)
def test_the_real_rows_are_read_whole(name: str) -> None:
    problems = load_benchmark(name, data=f"{REAL}/{name}.jsonl")
    assert len(problems) == COUNTS[name] == len({problem.id for problem in problems})
    assert {problem.kind for problem in problems} == {BENCHMARKS[name].kind}


@needs_real
@pytest.mark.parametrize("name", ["aime24", "amc", "math500", "minerva", "olympiadbench"])
def test_a_real_verl_file_holds_the_same_questions(name: str) -> None:
    held = Path(str(REAL)).parent / "verl_sample.parquet"
    if not held.exists():
        pytest.skip("there is no verl_sample.parquet beside the benchmarks' rows")
    ours, theirs = load_benchmark(name, data=f"{REAL}/{name}.jsonl"), load_benchmark(name, data=str(held))
    assert {problem.question.strip() for problem in theirs} == {problem.question.strip() for problem in ours}
