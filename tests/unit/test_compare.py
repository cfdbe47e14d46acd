"""The paired test, Holm's correction, verdicts in words, several runs, flips, the gate, and the command around them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import curiosft
from hypothesis import given, settings
from hypothesis import strategies as st

from curiosft_cli.evaluation.metrics import standard_error
from curiosft_cli.evaluation.paired import holm, paired_difference, verdict
from curiosft_cli.evaluation.results import read_results, suite_rows
from curiosft_cli.run.errors import CurioError
from curiosft_cli.tools import compare as tool
from curiosft_cli.tools.tables import as_csv, as_latex, as_markdown


def test_holm_by_hand() -> None:
    """Sorted .01 .02 .03 .5 times 4 3 2 1 is .04 .06 .06 .5; the third must not fall below the second."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_corrects_upwards_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))
    assert all(
        after <= min(1.0, before * len(p_values)) + 1e-12 for before, after in zip(p_values, corrected, strict=True)
    )
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(corrected)[order]) == sorted(corrected)


def test_the_interval_is_that_of_the_clustered_standard_error() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(400), rng.random(400)
    found = paired_difference({"math500": (a, b)}, seed=0)
    error = standard_error(b - a)
    assert found.mean == pytest.approx(float((b - a).mean()))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert found.low < found.mean < found.high


def test_swapping_the_models_turns_the_sign() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(50), rng.random(50)
    one, two = paired_difference({"x": (a, b)}, 0), paired_difference({"x": (b, a)}, 0)
    assert one.mean == pytest.approx(-two.mean)
    assert one.p == pytest.approx(two.p, abs=0.02)


def test_a_suite_counts_its_benchmarks_alike() -> None:
    """Differences 1 on 20 questions and 0 on 200: the plain mean of the two is 0.5, not 20/220."""
    pairs = {"small": (np.zeros(20), np.ones(20)), "large": (np.zeros(200), np.zeros(200))}
    found = paired_difference(pairs, 0)
    assert (found.mean, found.low, found.high, found.questions) == (0.5, 0.5, 0.5, 20)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([0.0] * 40, [0.0] * 20 + [1.0] * 20, "better"),
        ([0.5] * 40, [0.0] * 20 + [0.5] * 20, "worse"),
        ([0.0, 1.0] * 20, [1.0, 0.0] * 20, "no evidence"),
        ([0.0, 1.0] * 20, [0.0, 1.0] * 20, "identical"),
        ([0.0] * 9, [1.0] * 9, "too few questions"),
        ([0.0] * 39 + [1.0], [0.0] * 38 + [1.0] * 2, "no evidence"),
    ],
)
def test_verdicts(a: list[float], b: list[float], said: str) -> None:
    found = paired_difference({"x": (a, b)}, seed=0)
    assert verdict(found, found.p) == said


def test_equal_models_are_rarely_called_different() -> None:
    """200 pairs of models that are equal by construction, 60 questions x 8 samples: about 5 % of p below 0.05."""
    rng = np.random.default_rng(3)
    false = 0
    for trial in range(200):
        chance = rng.beta(0.5, 0.5, 60)
        a, b = rng.binomial(8, chance) / 8, rng.binomial(8, chance) / 8
        false += paired_difference({"x": (a, b)}, trial, draws=1000).p < 0.05
    assert false <= 22


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_p_is_a_probability_and_never_zero(pairs: list[tuple[float, float]]) -> None:
    found = paired_difference({"x": ([a for a, _ in pairs], [b for _, b in pairs])}, 0, draws=200)
    assert 0 < found.p <= 1
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=40),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.05, 0.25]),
)
@settings(max_examples=60, deadline=None)
def test_the_interval_and_p_always_agree(pairs: list[tuple[int, int]], runs: int, margin: float) -> None:
    rng = np.random.default_rng(len(pairs))
    a, b = (
        np.array([side] * runs) / 8 + rng.normal(0, 0.1, (runs, 1)) * (runs > 1) for side in zip(*pairs, strict=True)
    )
    found = paired_difference({"x": (a, b)}, 0, margin=margin, draws=400)
    beyond = abs(found.mean) > margin
    ends = [np.copysign(margin, found.mean)] if beyond else [-margin, margin]
    assert (found.p < 0.05) == (not any(found.low <= end <= found.high for end in ends))


def test_few_questions_that_differ_are_no_evidence() -> None:
    """Four questions won and none lost: as rare as four heads in a row or four tails, 1/8."""
    found = paired_difference({"x": ([0.0] * 40, [1.0] * 4 + [0.0] * 36)}, 0)
    assert found.p == pytest.approx(1 / 8, abs=0.01)


def test_a_difference_between_runs_widens_the_interval() -> None:
    """Two methods of three runs; the runs of each differ by 10 points. Their mean differs by 5."""
    rng = np.random.default_rng(4)
    question, shift = rng.random(200) * 0.6 + 0.2, np.array([[-0.1], [0.0], [0.1]])
    equal = paired_difference({"x": (np.repeat(question[None], 3, 0), np.repeat(question[None], 3, 0) + 0.05)}, 0)
    differing = paired_difference({"x": (question + shift, question + shift + 0.05)}, 0)
    assert equal.p < 0.01 and differing.p > 0.2
    # Variance 0.01 within each method, 4 degrees of freedom: 2.776 * 0.1 * sqrt(2 / 3).
    assert (differing.high - differing.low) / 2 == pytest.approx(2.776 * 0.1 * (2 / 3) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("b", "margin", "said"),
    [(0.2, 0.1, "better"), (-0.2, 0.1, "worse"), (0.02, 0.1, "too small to matter"), (0.11, 0.1, "no evidence")],
)
def test_a_difference_that_does_not_matter_is_no_verdict(b: float, margin: float, said: str) -> None:
    values = np.random.default_rng(5).normal(b, 0.1, 100)
    found = paired_difference({"x": (np.zeros(100), values)}, 0, margin=margin)
    assert verdict(found, found.p, margin) == said


def test_unpaired_means_are_refused() -> None:
    with pytest.raises(CurioError, match="shapes"):
        paired_difference({"x": ([0.0, 1.0], [1.0])}, 0)
    with pytest.raises(CurioError, match="nothing to compare"):
        paired_difference({}, 0)


def test_tables_escape_what_their_format_would_read() -> None:
    rows = [["a_b", "100 %"], ["x|y", "1,5"]]
    assert as_markdown(rows).splitlines() == ["| a_b | 100 % |", "| --- | ---: |", r"| x\|y | 1,5 |"]
    assert r"a\_b & 100 \% \\" in as_latex(rows)
    assert as_csv(rows).splitlines() == ["a_b,100 %", 'x|y,"1,5"']


def test_suites_are_called_incomplete_when_they_are() -> None:
    assert suite_rows(["aime24", "math500", "arithmetic"]) == {"ID average (2 of 6)": ["aime24", "math500"]}
    ood = ["gpqa_diamond", "arc_challenge", "mmlu_pro"]
    assert suite_rows(ood) == {"OOD average": ood}


def compare(paths: Sequence[Path | str], **options: Any) -> str:
    """The text that the command prints."""
    return tool.compare([str(path) for path in paths], **options)[0]


def save(folder: Path, benchmark: str, scores: dict[str, float | None], checkpoint: str = "m", **more: Any) -> None:
    place = folder / benchmark
    place.mkdir(parents=True)
    summary = {"benchmark": benchmark, "checkpoint": checkpoint, "settings": {"temperature": 0.6}, **more}
    (place / "summary.json").write_text(json.dumps(summary))
    rows = [{"id": id_, "gold": id_.upper(), "answer": score, "strict": score} for id_, score in scores.items()]
    (place / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def scores(right: int, of: int) -> dict[str, float | None]:
    return {f"q{n}": float(n < right) for n in range(of)}


def test_the_command_compares_every_model_with_the_first(tmp_path: Path) -> None:
    for model, right in (("sft", 10), ("curio", 30), ("gem", 12)):
        save(tmp_path / "eval" / model, "math500", scores(right, 40), model)
        save(tmp_path / "eval" / model, "aime24", scores(right // 2, 30), model)
    folders = [str(tmp_path / "eval" / model) for model in ("sft", "curio", "gem")]
    command = [sys.executable, "-m", "curiosft_cli.cli", "compare", *folders]
    done = subprocess.run([*command, "--format", "csv"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["model"], row["benchmark"]) for row in rows] == [
        (model, place) for model in ("curio", "gem") for place in ("aime24", "math500", "ID average (2 of 6)")
    ]
    assert [row["verdict"] for row in rows] == ["better"] * 3 + ["no evidence"] * 3
    assert rows[1]["difference"] == "+50.0"
    whole = compare([tmp_path / "eval"])
    assert "gem: worse on aime24" in whole and "sft: worse on aime24" in whole  # by name: curio is the first
    latex = compare([Path(folder) for folder in folders], style="latex")
    table, _, notes = latex.partition("\n\n")
    assert table.startswith(r"\begin{tabular}") and all(line.startswith("% ") for line in notes.splitlines())


def test_runs_of_one_name_are_one_method(tmp_path: Path) -> None:
    for seed in range(3):
        save(tmp_path / f"a-{seed}" / "eval" / "sft", "math500", scores(20 + seed, 60), "sft")
        save(tmp_path / f"b-{seed}" / "eval" / "sft", "math500", scores(40 - seed, 60), "sft")
    shown = compare([f"a={tmp_path}/a-0", f"a={tmp_path}/a-[12]", f"b={tmp_path}/b-*/eval"])
    assert "Runs: a 3, b 3." in shown and "b: better on math500 (+30.0)" in shown
    report = json.loads(compare([f"a={tmp_path}/a-*", f"b={tmp_path}/b-*"], style="json"))
    assert (report["rows"][0]["first"], report["rows"][0]["second"]) == (pytest.approx(35), pytest.approx(65))
    for wrong, said in (
        ([f"a={tmp_path}/c-*", f"b={tmp_path}/b-*"], "finds no folder"),
        ([f"a={tmp_path}/a-0", f"a={tmp_path}/a-*", f"b={tmp_path}/b-*"], "given twice"),
        ([f"a={tmp_path}", f"b={tmp_path}/b-*"], "holds 6 models"),
        ([f"a={tmp_path}/a-0", f"={tmp_path}/b-0"], "finds no folder"),
    ):
        with pytest.raises(CurioError, match=said):
            compare(wrong)


def test_pass_at_k_diversity_and_entropy_have_intervals_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    for model, spread in (("a", 0.0), ("b", 0.3)):
        place = tmp_path / model / "math500"
        save(tmp_path / model, "math500", scores(20, 40), model)
        rows = [
            {"id": f"q{n}", "gold": "1", "samples": 6, "answer": n % 4 / 6, "strict": 0.0, "diversity": 0.4 + spread}
            | {"entropy_sum_nats": (1 + spread) * tokens, "entropy_tokens": tokens}
            for n, tokens in enumerate(rng.integers(5, 50, 40).tolist())
        ]
        (place / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {row["measure"]: row for row in json.loads(compare([tmp_path], style="json"))["measures"]}
    assert list(found) == ["pass@2", "pass@4", "pass@6", "entropy", "diversity"]
    assert found["pass@6"]["first"] == 75 and found["pass@6"]["verdict"] == "identical"
    # 0, 1, 2 or 3 of 6 right: 1 - C(6 - c, 2) / C(6, 2).
    assert found["pass@2"]["first"] == pytest.approx(100 * (0 + 5 / 15 + 9 / 15 + 12 / 15) / 4)
    assert found["entropy"]["difference"] == pytest.approx(0.3) and found["entropy"]["verdict"] == "higher"
    assert found["diversity"]["low"] == pytest.approx(0.3)
    shown = compare([tmp_path])
    assert "Pass@6" in shown and "Pass@4" not in shown and "corrected for these 5 comparisons" in shown


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("questions.jsonl", '"id": "q1"', '"id": ["q1"]', r"line 2: id is \['q1'\], expected text"),
        ("questions.jsonl", '"answer": 1.0', '"answer": NaN', "answer = nan is no score from 0 to 1"),
        ("questions.jsonl", '"gold"', '"samples": 1e9, "gold"', "samples = 1000000000.0 is no number"),
        ("questions.jsonl", '"gold"', '"diversity": [1], "gold"', r"diversity = \[1\] is no score"),
        ("questions.jsonl", '"gold"', '"entropy_tokens": Infinity, "gold"', "entropy_tokens = inf is no number"),
        ("summary.json", '"settings"', '"model": [], "settings"', r"model is \[\], expected an object"),
    ],
)
def test_damaged_results_are_refused(tmp_path: Path, file: str, old: str, new: str, said: str) -> None:
    for model in ("a", "b"):
        save(tmp_path / model, "math500", scores(5, 12), model)
    damaged = tmp_path / "b" / "math500" / file
    damaged.write_text(damaged.read_text().replace(old, new))
    with pytest.raises(CurioError, match=said):
        compare([tmp_path])


def test_flips_are_the_questions_that_one_alone_solves(tmp_path: Path) -> None:
    save(tmp_path / "a", "math500", {"p": 1.0, "q": 0.0, "r": 0.5, "s": 0.0}, "a")
    save(tmp_path / "b", "math500", {"p": 1.0, "q": 0.25, "r": 0.0, "s": 0.75}, "b")
    found = json.loads(compare([tmp_path / "a", tmp_path / "b"], style="json", with_flips=True))["flips"]
    assert [(row["question"], row["first"], row["second"]) for row in found] == [
        ("s", 0, 75),
        ("r", 50, 0),
        ("q", 0, 25),
    ]
    shown = compare([tmp_path / "a", tmp_path / "b"], with_flips=True)
    assert "math500: only b solves 2 questions, only a 1." in shown
    rows = list(csv.DictReader(io.StringIO(compare([tmp_path], style="csv", with_flips=True))))
    assert [row["gold"] for row in rows] == ["S", "R", "Q"]


@pytest.mark.parametrize(
    ("right", "of", "difference", "code", "said"),
    [
        (30, 60, 0, 0, ""),
        (45, 60, 0, 0, ""),
        (15, 60, 0, 4, "gate: is worse: b on math500 (-25.0)"),
        (297, 600, 10, 0, ""),
        (24, 60, 10, 5, "gate: may be worse: b on math500 (-10.0)"),
        (2, 6, 0, 5, "gate: may be worse"),
    ],
)
def test_a_gate_ends_with_a_code(tmp_path: Path, right: int, of: int, difference: int, code: int, said: str) -> None:
    save(tmp_path / "a", "math500", scores(of // 2, of), "a")
    save(tmp_path / "b", "math500", scores(right, of), "b")
    done = curiosft("compare", tmp_path / "a", tmp_path / "b", "--gate", f"--min-difference={difference}")
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_one_model_twice_gets_distinct_names_and_is_identical(tmp_path: Path) -> None:
    for run in ("one", "two"):
        save(tmp_path / run / "eval" / "sft", "math500", scores(5, 20), "sft")
    report = json.loads(compare([tmp_path / "one", tmp_path / "two"], style="json"))
    assert report["rows"][0]["model"] == "two/eval/sft"
    assert report["rows"][0]["verdict"] == "identical"
    assert report["rows"][0]["p"] == 1.0


def test_only_shared_gradable_questions_are_paired_and_differences_are_told(tmp_path: Path) -> None:
    grader = {"name": "curiosft", "version": "1", "code": "x"}
    prompt = {"prefill": "<think>\n", "system_prompt": None}
    save(tmp_path / "a", "math500", scores(10, 20), "a", grader=grader, prompt=prompt)
    theirs = {**scores(10, 30), "q0": None}
    settings = {"temperature": 1.0, "keep_system": False, "concurrency": 9}
    prompt = {"prefill": "", "system_prompt": None}
    save(tmp_path / "b", "math500", theirs, "b", grader={**grader, "code": "y"}, settings=settings, prompt=prompt)
    report = json.loads(compare([tmp_path / "a", tmp_path / "b"], style="json"))
    assert report["rows"][0]["questions"] == 19
    assert "20 and 30 questions, 20 shared" in report["notes"][0]
    assert "differ in temperature: 0.6 and 1.0" in report["notes"][1]
    assert "differ in grader: curiosft 1 (x) and curiosft 1 (y)" in report["notes"][2]
    assert r"differ in prefill: '<think>\n' and ''" in report["notes"][3]
    assert len(report["notes"]) == 4, "a key that the older result does not have is at its default"


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a" / "m", "math500", scores(1, 4))
    save(tmp_path / "b" / "m", "aime24", scores(1, 4))
    save(tmp_path / "c" / "m", "math500", scores(1, 4))
    file = tmp_path / "c" / "m" / "math500" / "questions.jsonl"
    file.write_text(file.read_text().replace('"Q0"', '"7"'))
    with pytest.raises(CurioError, match="found one model"):
        compare([tmp_path / "a"])
    with pytest.raises(CurioError, match="share no question"):
        compare([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(CurioError, match="the gold is 'Q0' in"):
        compare([tmp_path / "a", tmp_path / "c"])
    with pytest.raises(CurioError, match="did you mean 'latex'"):
        compare([tmp_path / "a", tmp_path / "c"], style="latx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CurioError, match="no finished benchmark"):
        read_results([tmp_path / "empty"])
    with pytest.raises(CurioError, match="not a folder"):
        read_results([tmp_path / "nowhere"])
