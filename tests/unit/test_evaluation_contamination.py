"""Scores without the questions that the training data has too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curiosft_cli.evaluation.samples import Generations, Sample, sample_row
from curiosft_cli.evaluation.score import clean_numbers, summarise_benchmark
from curiosft_cli.evaluation.tasks import BenchmarkTask, contaminated_ids, load_task
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import present
from curiosft_cli.run.log import Console
from curiosft_cli.run.sections import Config, Eval

ROWS = [
    {"id": "a", "answer": 1.0, "strict": 0.5},
    {"id": "b", "answer": 0.0, "strict": 0.0},
    {"id": "c", "answer": 0.5, "strict": 0.5},
    {"id": "d", "answer": None, "strict": None},
]


def report(folder: Path, *hits: tuple[str, str]) -> Path:
    found = {"benchmarks": {"amc": 3}, "hits": [{"benchmark": name, "id": question} for name, question in hits]}
    (folder / "report.json").write_text(json.dumps({"contamination": found}))
    return folder / "report.json"


def test_the_mean_is_over_clean_gradable_questions() -> None:
    """(0 + 0.5) / 2 is 25 %, the deviation of both is 0.3536, divided by the root of 2 it is 0.25."""
    assert clean_numbers(ROWS, {"a", "d"}) == {
        "questions": 2, "contaminated": 2, "avg": 25.0, "standard_error": pytest.approx(25.0), "strict": 25.0,
    }  # fmt: skip
    assert clean_numbers(ROWS, {"a", "b", "c"})["avg"] is None


def test_only_this_benchmarks_hits_count(tmp_path: Path) -> None:
    file = report(tmp_path, ("amc", "a"), ("other", "b"))
    assert contaminated_ids(file, "amc", ["a", "b"]) == {"a"}


def test_a_report_about_other_questions_is_refused(tmp_path: Path) -> None:
    file = report(tmp_path, ("amc", "z"))
    with pytest.raises(CurioError, match="lists question z of amc"):
        contaminated_ids(file, "amc", ["a", "b"])
    with pytest.raises(CurioError, match="did not compare the data with minerva, only with amc"):
        contaminated_ids(file, "minerva")
    for text, says in (("{}", "is not a report"), ("no", "is not a report")):
        file.write_text(text)
        with pytest.raises(CurioError, match=says):
            contaminated_ids(file, "amc")
    with pytest.raises(CurioError, match="cannot read"):
        contaminated_ids(tmp_path / "none.json", "amc")


def test_the_evaluation_reads_it_before_it_samples(tmp_path: Path) -> None:
    data = tmp_path / "amc.jsonl"
    data.write_text("".join(json.dumps({"id": n, "question": f"What is {n}?", "answer": "1"}) + "\n" for n in "ab"))

    def asked(**settings: Any) -> BenchmarkTask:
        return load_task(Config(eval=Eval(data={"amc": str(data)}, **settings)), "amc")

    assert asked().contaminated is None
    assert asked(contamination=str(report(tmp_path, ("amc", "b")))).contaminated == {"b"}
    with pytest.raises(CurioError, match="lists question z"):
        asked(contamination=str(report(tmp_path, ("amc", "z"))))
    assert asked(contamination=str(report(tmp_path, ("amc", "z"))), limit=1).contaminated == {"z"}


def test_the_summary_holds_both_scores(tmp_path: Path) -> None:
    data, samples = tmp_path / "amc.jsonl", tmp_path / "samples.jsonl"
    data.write_text("".join(json.dumps({"id": n, "question": f"What is {n}?", "answer": "1"}) + "\n" for n in "abc"))
    said = {"a": "1", "b": "1", "c": "2"}
    samples.write_text(
        "".join(
            json.dumps(sample_row(n, 0, Sample(f"Hm.</think>\\boxed{{{x}}}", 5, "stop"))) + "\n"
            for n, x in said.items()
        )
    )
    for file, expected in ((None, None), (str(report(tmp_path, ("amc", "a"))), (2, 1, 50.0, 50.0))):
        settings = Eval(data={"amc": str(data)}, samples=1, contamination=file, grader_workers=1)
        config = Config(eval=settings)
        asked = load_task(config, "amc")
        summarise_benchmark(
            config, tmp_path, asked, Generations(present(samples), asked.problems), reference="base", model={}, entropy=None,
            hardware={}, console=Console(enabled=False),
        )  # fmt: skip
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert summary["avg"] == pytest.approx(200 / 3)
        clean = summary["clean"]
        names = ("questions", "contaminated", "avg", "strict")
        assert (clean and tuple(clean[name] for name in names)) == expected
