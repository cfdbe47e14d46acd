"""From saved samples to numbers: the index, the summary, the files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.evaluation.fingerprint import data_commit, model_identity
from curiosft_cli.evaluation.samples import Generations, Sample, sample_row
from curiosft_cli.evaluation.score import claim_folder, is_summarised, score_samples
from curiosft_cli.evaluation.summary import Outcome, Summary
from curiosft_cli.evaluation.tasks import load_task, load_tasks
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.run.config import load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import JsonLines, compress_jsonl, present, read_jsonl, unpack_jsonl
from curiosft_cli.run.rundir import RunDir, begin
from curiosft_cli.tools.results_report import detail_table, paper_table

PROBLEMS = [Problem("p", "?", "4"), Problem("q", "?", "5"), Problem("r", "?", "")]


def outcome(right: float | None, said: str | None, *, reason: Any = "wrong", finish: str = "stop") -> Outcome:
    grade = Grade(right, right, said, None, "ok", "correct" if right else reason, None if right else "F2")
    return Outcome(grade, f"text {said}", 10 if right else 30, finish)


def summarise(problems: list[Problem], questions: list[list[Outcome]], pass_k: tuple[int, ...]) -> dict[str, Any]:
    summary = Summary()
    for problem, outcomes in zip(problems, questions, strict=True):
        summary.add(problem, outcomes)
    return summary.numbers(pass_k)


def test_summary_by_hand() -> None:
    """p: 4, 9, 9 -> one right of three, 9 wins; q: 5, 10/2, none -> two right and they win; r has no gold."""
    questions = [
        [outcome(1.0, "4"), outcome(0.0, "9"), outcome(0.0, "9.0", finish="length", reason="truncated")],
        [outcome(1.0, "5"), outcome(1.0, "10/2"), outcome(0.0, None, reason="no_answer")],
        [outcome(None, "1", reason="ungradable_gold"), outcome(None, "1"), outcome(None, "2")],
    ]
    found = summarise(PROBLEMS, questions, (1, 3))
    assert (found["questions"], found["samples"], found["ungradable_questions"]) == (3, 3, 1)
    assert found["avg"] == pytest.approx(100 * (1 / 3 + 2 / 3) / 2)
    assert found["pass"] == {"1": pytest.approx(50), "3": pytest.approx(100)}
    assert found["maj"] == pytest.approx(50)
    assert found["standard_error"] == pytest.approx(100 / 6)
    assert found["avg_untruncated"] == pytest.approx(100 * 3 / 5)
    assert found["truncated"] == pytest.approx(100 / 9)
    assert found["no_answer"] == pytest.approx(100 / 9)
    assert found["format"] == pytest.approx(100 * 3 / 9)
    assert found["unique_answers"] == pytest.approx((2 + 1 + 2) / 3)
    assert (found["tokens_mean"], found["tokens_median"]) == (pytest.approx((3 * 10 + 6 * 30) / 9), 30)
    assert found["reasons"] == {"correct": 3, "no_answer": 1, "truncated": 1, "ungradable_gold": 1, "wrong": 3}
    # Only "9.0" and "10/2" make a text of four tokens: p and q have one such text of three each, r has none.
    assert found["ngram_diversity_4"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_unequal_numbers_of_samples_are_refused() -> None:
    summary = Summary()
    summary.add(PROBLEMS[0], [outcome(1.0, "4")])
    with pytest.raises(CurioError, match="question q has 2 samples, the one before 1"):
        summary.add(PROBLEMS[1], [outcome(1.0, "5")] * 2)


def test_nothing_gradable_is_null_not_zero() -> None:
    found = summarise(PROBLEMS[2:], [[outcome(None, "1")]], (1,))
    assert found["avg"] is None and found["standard_error"] is None and found["pass"] == {"1": None}


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def right_and_wrong(id_: str, answers: list[str]) -> list[dict[str, Any]]:
    texts = [f"a</think>\\boxed{{{said}}}" for said in answers]
    return [sample_row(id_, j, Sample(text, 7, "stop", (1, 2))) for j, text in enumerate(texts)]


def test_a_sample_says_whether_its_prompt_held_the_opening_tag(tmp_path: Path) -> None:
    """The same text is in the required format or not; where a file does not say, the configuration does."""
    text = "<think>hm</think>\\boxed{4}"
    rows = [sample_row("p", j, Sample(text, 5, "stop", prefilled=given)) for j, given in enumerate((False, True, None))]
    generations = Generations(save(tmp_path / "samples.jsonl", rows), PROBLEMS[:1])
    with GraderPool(1) as pool:
        settings: dict[str, Any] = {"grader": "curiosft", "pass_k": (1,), "progress": lambda done, total: None}
        arguments = (generations, PROBLEMS[:1], 3, tmp_path, pool)
        numbers = score_samples(*arguments, prefilled=False, **settings)
    assert [row["strict"] for row in read_jsonl(tmp_path / "grades.jsonl.zst")] == [1, 0, 1]
    assert numbers["prefilled"] is None and numbers["avg"] == 100


def test_the_index_finds_samples_in_any_order_and_passes_over_the_rest(tmp_path: Path) -> None:
    rows = [*right_and_wrong("q", ["5", "6"])[::-1], *right_and_wrong("other", ["1"]), *right_and_wrong("p", ["4"])]
    again = {**right_and_wrong("p", ["twice"])[0]}
    file = save(tmp_path / "samples.jsonl", [*rows, again])
    with file.open("a") as torn:
        torn.write('{"id": "p", "sample": 1, "text": "torn')
    found = Generations(file, PROBLEMS[:2])
    assert found.missing(2) == [(0, 1)]
    assert found.complete_samples() == 1
    texts = [(index, sample.text[-3:]) for index, sample in found.read(1)]
    assert texts == [(0, "{4}"), (1, "{5}")]


def test_packed_samples_are_read_and_grown(tmp_path: Path) -> None:
    """Packed in finishing order, read question by question; unpacked, they take more; the plain file counts first."""
    file = tmp_path / "samples.jsonl"
    packed = compress_jsonl(save(file, [*right_and_wrong("q", ["5"]), *right_and_wrong("p", ["4", "3"])[::-1]]))
    found = Generations(packed, PROBLEMS[:2])
    assert found.missing(2) == [(1, 1)] and not file.exists()
    assert [(index, sample.text[-3:]) for index, sample in found.read(1)] == [(0, "{4}"), (1, "{5}")]
    assert [entry.name for entry in tmp_path.iterdir()] == [packed.name], "the temporary file has a name"
    unpack_jsonl(file)
    with JsonLines(file) as lines:
        lines.append(right_and_wrong("q", ["5", "6"])[1])
    assert Generations(present(file), PROBLEMS[:2]).missing(2) == []
    packed.write_bytes(b"of a process that was killed while it packed")
    assert present(file) == file and compress_jsonl(file) == present(file)
    assert Generations(packed, PROBLEMS[:2]).complete_samples() == 2


def test_a_damaged_packed_file_is_named(tmp_path: Path) -> None:
    packed = tmp_path / "samples.jsonl.zst"
    packed.write_bytes(b"not a frame")
    with pytest.raises(CurioError, match=r"samples.jsonl.zst cannot be unpacked"):
        Generations(packed, PROBLEMS[:1])


def test_rows_of_others_need_only_id_and_text(tmp_path: Path) -> None:
    rows = [{"id": "p", "response": "\\boxed{4}"}, {"id": "p", "completion": "\\boxed{3}"}, {"id": "q", "text": "5"}]
    found = Generations(save(tmp_path / "x.jsonl", rows), PROBLEMS[:1])
    assert [(sample.text, sample.finish_reason, sample.tokens) for _, sample in found.read(2)] == [
        ("\\boxed{4}", "stop", 0),
        ("\\boxed{3}", "stop", 0),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]\n", "without an id"),
        ('{"id": "p", "sample": -1, "text": ""}\n', "a sample number that is none"),
        ("nonsense\n", "not JSON"),
        ('{"id": "p"}\n', "sample 0 of question p has no text"),
    ],
)
def test_what_is_no_sample_is_refused(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text(line)
    with pytest.raises(CurioError, match=said):
        list(Generations(file, PROBLEMS[:1]).read(1))


def test_scoring_writes_grades_and_questions_and_refuses_gaps(tmp_path: Path) -> None:
    rows = [*right_and_wrong("p", ["4", "3", "4.0"]), *right_and_wrong("q", ["1", "1", "5"])]
    problems = PROBLEMS[:2]
    generations = Generations(save(tmp_path / "samples.jsonl", rows), problems)
    seen: list[tuple[int, int]] = []

    def score(samples: int) -> dict[str, Any]:
        with GraderPool(1) as pool:
            return score_samples(
                generations,
                problems,
                samples,
                tmp_path,
                pool,
                grader="curiosft",
                prefilled=True,
                pass_k=(1, samples),
                progress=lambda done, total: seen.append((done, total)),
            )

    numbers = score(3)
    assert numbers["avg"] == pytest.approx(100 * (2 / 3 + 1 / 3) / 2) and numbers["maj"] == pytest.approx(50)
    assert seen[-1] == (6, 6)
    questions = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert [(row["id"], row["gold"], row["unique"], row["majority"]) for row in questions] == [
        ("p", "4", 2, 1.0),
        ("q", "5", 2, 0.0),
    ]
    assert [row["answer"] for row in read_jsonl(tmp_path / "grades.jsonl.zst")] == [1, 0, 1, 0, 0, 1]
    with pytest.raises(CurioError, match=r"lacks 2 of 8 samples, the first is sample 3 of question p.*at most 3"):
        score(4)


RECIPE = """
[run]
name = "x"
root = "{root}"
[eval]
benchmarks = ["arithmetic"]
limit = 4
samples = 4
"""


def config(tmp_path: Path, *overrides: str) -> Any:
    file = tmp_path / "x.toml"
    file.write_text(RECIPE.format(root=tmp_path / "runs"))
    return load(str(file), overrides).config


def test_pass_k_defaults_to_the_curve_and_refuses_more_than_there_are_samples(tmp_path: Path) -> None:
    assert load_task(config(tmp_path), "arithmetic").pass_k == (1, 2, 4)
    assert load_task(config(tmp_path, "eval.samples=6"), "arithmetic").pass_k == (1, 2, 4, 6)
    with pytest.raises(CurioError, match=r"eval.pass_k holds 8, but arithmetic has 4 samples.*at least 32"):
        load_task(config(tmp_path, "eval.pass_k=[1,8,32]"), "arithmetic")


def test_a_file_for_a_benchmark_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CurioError, match=r"eval.data.arithmetics: benchmark 'arithmetics' does not exist.*arithmetic"):
        load_tasks(config(tmp_path, "eval.data.arithmetics=x.jsonl"))


def test_an_evaluation_opens_again_for_more_samples_but_not_for_other_ones(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "runs" / "x")
    stage, complete = begin(run, "eval", config(tmp_path))
    save(stage.path / "sft" / "arithmetic" / "samples.jsonl", [{"id": "p"}])
    stage.set_status("complete")
    assert not complete and begin(run, "eval", config(tmp_path))[1]
    for change in ("eval.samples=8", "eval.grader=official", "eval.pass_k=[1]", "eval.limit=9"):
        assert not begin(run, "eval", config(tmp_path, change))[1]
        stage.set_status("complete")
    with pytest.raises(CurioError, match=r"eval.temperature: 0.6 -> 1.0"):
        begin(run, "eval", config(tmp_path, "eval.temperature=1.0"))
    assert begin(run, "eval", config(tmp_path, "eval.limit=9", "eval.grader_workers=1"))[1]


def test_a_summary_is_made_again_when_it_is_not_the_one_asked_for(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    asked = load_task(wanted, "arithmetic")
    assert not is_summarised(tmp_path, asked, wanted)
    summary = {"samples": 4, "questions": 4, "settings": wanted.eval.model_dump(mode="json")}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert is_summarised(tmp_path, asked, wanted)
    for change in ("eval.grader=official", "eval.pass_k=[1]", "eval.samples=8", "eval.entropy_samples=0"):
        other = config(tmp_path, change)
        assert not is_summarised(tmp_path, load_task(other, "arithmetic"), other)


def test_samples_belong_to_one_model(tmp_path: Path) -> None:
    claim_folder(tmp_path, {"path": "a", "sha256": "1"})
    claim_folder(tmp_path, {"path": "b", "sha256": "2"})  # nothing was sampled yet
    (tmp_path / "samples.jsonl").touch()  # a try that drew nothing
    claim_folder(tmp_path, {"path": "a", "sha256": "2"})
    (tmp_path / "samples.jsonl").write_text("{}\n")
    claim_folder(tmp_path, {"path": "moved", "sha256": "2"})
    with pytest.raises(CurioError, match=r"drawn from path moved, sha256 2, this is path a, sha256 1"):
        claim_folder(tmp_path, {"path": "a", "sha256": "1"})


def test_tables_show_scores_errors_averages_and_gaps() -> None:
    numbers = summarise(PROBLEMS[:2], [[outcome(1.0, "4")], [outcome(0.0, "1")]], (1,))
    rows = [{"checkpoint": "sft", "benchmark": "math500", "entropy_nats": None, **numbers}]
    table = paper_table(rows, {"sft": {"ID average (1 of 6)": {"avg": 50.0, "standard_error": None}}})
    assert "50.0 ± 50.0" in table and table.splitlines()[1].split()[-2:] == ["50.0", "-"]
    detail = detail_table(rows)
    assert "math500 (2 x 1)" in detail and "Pass@1" not in detail


def test_wide_tables_fold_and_the_best_score_of_each_benchmark_is_marked() -> None:
    rows = []
    for model, right in (("base", [1.0, 0.0, 0.0, 0.0]), ("sft", [1.0, 1.0, 0.0, 0.0])):
        numbers = summarise(PROBLEMS[:2], [[outcome(score, str(score)) for score in right]] * 2, (1, 2, 4))
        for name in ("math500", "aime24"):
            better = {**numbers, "avg": 90.0} if (model, name) == ("base", "aime24") else numbers
            rows.append({"checkpoint": model, "benchmark": name, "entropy_nats": 0.25, **better})
    detail = detail_table(rows)
    parts = [part.splitlines() for part in detail.split("\n\n")]
    assert len(parts) > 1 and all(len(line) <= 80 for part in parts for line in part)
    assert all(part[0].startswith("checkpoint  benchmark") and len(part) == 5 for part in parts)
    marked = {tuple(line.split()[:2]) for line in parts[0][1:] if "*" in line.split("±")[1]}
    assert marked == {("base", "aime24"), ("sft", "math500")}
    assert "Pass@2" in detail and "Pass@4" in detail and "Pass@1" not in detail
    assert "50.0 ± 0.0*" in paper_table(rows, {"base": {}, "sft": {}})


def test_the_commit_of_a_data_set_is_the_pinned_one_or_the_cached_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert data_commit("a/b", "c" * 40) == "c" * 40
    assert data_commit("a/b", None) is None
    reference = tmp_path / "datasets--a--b" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text("d" * 40)
    assert data_commit("a/b", None) == "d" * 40


def test_a_model_folder_is_known_by_its_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"1")
    one, two = (model_identity(str(tmp_path / name)) for name in ("one", "two"))
    assert one["sha256"] == two["sha256"] and one["path"] != two["path"]
    (tmp_path / "two" / "model.safetensors").write_bytes(b"2")
    assert model_identity(str(tmp_path / "two"))["sha256"] != one["sha256"]
