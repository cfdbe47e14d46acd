"""Which checkpoint RL starts from: numbers by hand, ties, gaps, and where scores come from."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from command import curiosft
from hypothesis import given
from hypothesis import strategies as st
from made_runs import evaluated, make_run

from curiosft_cli.evaluation.fingerprint import model_identity, recorded_identity
from curiosft_cli.evaluation.metrics import no_signal
from curiosft_cli.tools.choose.evidence import Score
from curiosft_cli.tools.choose.recommend import recommend, row_of


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 8))
def test_no_signal_is_the_share_of_the_groups(n: int, correct: int, k: int) -> None:
    correct, k = min(correct, n), min(k, n)
    groups = list(combinations([1] * correct + [0] * (n - correct), k))
    assert no_signal(n, correct, k) == pytest.approx(sum(len(set(group)) == 1 for group in groups) / len(groups))


def scores(*right: int, samples: int = 4) -> dict[tuple[str, str], Score]:
    """One benchmark, with so many right samples of each question; a right answer is always in the right format."""
    return {("b", str(i)): Score(samples, count / samples, count / samples) for i, count in enumerate(right)}


def test_columns_by_hand() -> None:
    """Pass@2 of 0, 1, 2, 4 right of 4: 0, 1/2, 5/6, 1. Pairs without a signal: all 6, 3 wrong, 1 + 1, all 6 of 6."""
    row = row_of("r:sft@1", scores(0, 1, 2, 4), 2, 0.5, 0.25)
    assert (row.avg, row.held_out_nats, row.entropy_nats) == (100 * 7 / 16, 0.5, 0.25)
    assert row.passed == pytest.approx(100 * (0 + 1 / 2 + 5 / 6 + 1) / 4)
    assert row.silent == pytest.approx(100 * (1 + 3 / 6 + 2 / 6 + 1) / 4)
    two = {**scores(4, 4), ("c", "0"): Score(4, 0.0, 0.0)}
    assert row_of("r:sft@1", two, 2, None, None).passed == 50  # the plain mean over benchmarks
    few = row_of("r:sft@1", scores(1, samples=1), 2, None, None)
    assert (few.avg, few.passed, few.silent) == (100, None, None)


def test_pass_at_the_group_size_decides_and_not_the_average() -> None:
    """a: half of the questions always right. b: each right once of 4. b has the lower Avg and Pass@4 = 1."""
    a, b = row_of("a", scores(*[4, 0] * 20), 4, 0.1, None), row_of("b", scores(*[1] * 40), 4, 0.2, None)
    assert (a.avg, b.avg, a.passed, b.passed, a.silent, b.silent) == (50, 25, 50, 100, 100, 0)
    chosen, why = recommend([a, b], 4)
    assert chosen == "b" and "the highest Pass@4, 100.0 %" in why and "Avg@k alone would choose a" in why


def test_a_tie_goes_to_the_held_out_loss_then_to_the_signal() -> None:
    """a solves two questions that b does not, and b one that a does not: 5 % of 20, with a standard error of 9 %."""
    a, b = scores(*[4] * 10, *[0] * 10), scores(0, 0, *[4] * 9, *[0] * 9)
    chosen, why = recommend([row_of("a", a, 4, 0.3, None), row_of("b", b, 4, 0.2, None)], 4)
    assert chosen == "b" and "the lowest held-out loss, 0.200 nats, of the 2 checkpoints" in why
    c = scores(0, 0, *[4] * 8, 2, *[0] * 9)
    chosen, why = recommend([row_of("a", a, 4, None, None), row_of("c", c, 4, None, None)], 4)
    assert chosen == "c" and "the fewest questions without a signal, 95.0 %" in why


def test_without_samples_the_loss_decides_and_without_both_nothing_does() -> None:
    rows = [row_of("a", {}, 8, 0.3, 0.1), row_of("b", {}, 8, 0.2, 0.1), row_of("c", {}, 8, None, 0.1)]
    assert recommend(rows, 8) == ("b", "start from b: the lowest held-out loss, 0.200 nats.")
    chosen, why = recommend(rows[1:], 8)
    assert chosen is None and "neither Pass@8 nor the held-out loss of two checkpoints is known" in why


@pytest.fixture
def root(tmp_path: Path) -> Path:
    metrics = {"train/entropy_top20_nats": 0.5}
    one = make_run(tmp_path, "one", {3: metrics | {"eval/loss_nats": 0.4}, 6: metrics | {"eval/loss_nats": 0.3}})
    make_run(tmp_path, "two", {5: metrics})
    for step, right in ((3, [1] * 20), (6, [4, 0] * 10)):
        evaluated(one / "eval" / f"any-{step}" / "amc", one / "sft" / f"checkpoint-{step}", right)
    return tmp_path


def test_a_checkpoint_is_recognised_by_its_weights(root: Path) -> None:
    checkpoint = root / "one" / "sft" / "checkpoint-3"
    assert recorded_identity(checkpoint) == model_identity(str(checkpoint))["sha256"]
    assert recorded_identity(checkpoint) != recorded_identity(root / "one" / "sft" / "checkpoint-6")


def test_the_table_over_two_runs_names_what_is_missing(root: Path) -> None:
    done = curiosft("choose", root / "one", root / "two")
    assert done.returncode == 0
    head, first, second, third = done.stdout.splitlines()[:4]
    assert head.split() == [
        "checkpoint",
        "Avg@k",
        "Pass@2",
        "no",
        "signal",
        "held-out",
        "loss",
        "top-20",
        "%",
        "entropy",
    ]
    assert first.split() == ["one:sft@3", "25.0", "50.0", "50.0", "0.400", "0.500"]
    assert second.split() == ["one:sft@6", "50.0", "50.0", "100.0", "0.300", "0.500"]
    assert third.split() == ["two:sft@5", "-", "-", "-", "-", "0.500"]
    text = done.stdout
    assert "start from one:sft@6" in text and "rl.init=one:sft@6" in text and f"run.root={root}" in text
    assert "scores: evaluation 'eval', 20 questions of amc." in text
    assert "missing: Pass@2 and no signal of two:sft@5. To get it: curiosft choose" in text
    assert "missing: held-out loss of two:sft@5. To get it: curiosft choose" in text
    assert "rl draws with (1.0, 0.95, 8192)" in text
    found = json.loads(curiosft("choose", root / "one", root / "two", "--json").stdout)
    assert (found["group"], found["recommended"], found["rows"][2]["avg"]) == (2, "one:sft@6", None)


def test_the_group_size_is_a_setting(root: Path) -> None:
    assert "Pass@4" in curiosft("choose", root / "one", "rl.num_generations=4").stdout.splitlines()[0]
    eight = curiosft("choose", root / "one", "rl.num_generations=8").stdout
    assert eight.splitlines()[1].split() == ["one:sft@3", "25.0", "-", "-", "0.400", "0.500"]
    assert "the lowest held-out loss, 0.300 nats" in eight


def test_the_evaluation_that_covers_more_checkpoints_gives_all_scores(root: Path) -> None:
    checkpoint = root / "two" / "sft" / "checkpoint-5"
    evaluated(root / "two" / "other" / "sft" / "amc", checkpoint, [4] * 20)
    text = curiosft("choose", root / "one", root / "two").stdout
    assert "evaluation 'eval'" in text and text.splitlines()[3].split()[:2] == ["two:sft@5", "-"]
    evaluated(root / "two" / "eval" / "sft" / "amc", checkpoint, [4] * 10)
    text = curiosft("choose", root / "one", root / "two").stdout
    assert "scores: evaluation 'eval', 10 questions of amc." in text and "start from two:sft@5" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no run is named"),
        (["nowhere"], "'nowhere' is no run with an sft stage"),
        (["sft.epochs=2"], "no run is named"),
    ],
)
def test_bad_input_is_one_line(words: list[str], said: str) -> None:
    done = curiosft("choose", *words)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_damaged_evaluation_is_named(root: Path) -> None:
    file = root / "one" / "eval" / "any-3" / "amc" / "questions.jsonl"
    file.write_text('{"id": "q0", "answer": 1.0}\n')
    done = curiosft("choose", root / "one")
    assert done.returncode == 2 and "questions.jsonl holds a row that is no question" in done.stderr
