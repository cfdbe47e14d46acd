"""Report numbers against hand-computed vectors and identities."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curiosft_cli.evaluation import metrics
from curiosft_cli.evaluation.results import suite_averages
from curiosft_cli.run.errors import CurioError

MEANS = [1, 0.5, 0.25, 0, 0.125, 1, 0, 0.75]


@pytest.mark.parametrize(
    ("n", "correct", "k", "value"),
    [
        (8, 0, 1, 0.0),
        (8, 2, 1, 0.25),
        (8, 2, 4, 0.7857142857),
        (8, 1, 8, 1.0),
        (10, 3, 5, 0.9166666667),
        (32, 3, 8, 0.5919354839),
        (64, 5, 32, 0.9735883424),
    ],
)
def test_golden_pass_at_k(n: int, correct: int, k: int, value: float) -> None:
    assert metrics.pass_at_k(n, correct, k) == pytest.approx(value, abs=1e-10)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_its_definition(case: tuple[int, int, int]) -> None:
    n, correct, k = case
    defined = 1 - math.comb(n - correct, k) / math.comb(n, k)
    assert metrics.pass_at_k(n, correct, k) == pytest.approx(defined, abs=1e-12)


@pytest.mark.parametrize(("n", "correct", "k"), [(8, 2, 9), (8, 9, 1), (8, -1, 1), (8, 2, 0)])
def test_pass_at_k_refuses_what_it_cannot_estimate(n: int, correct: int, k: int) -> None:
    with pytest.raises(CurioError):
        metrics.pass_at_k(n, correct, k)


def test_majority_score_is_that_of_the_most_frequent_answer() -> None:
    """A tie goes to the earlier answer; missing answers have no vote."""
    assert metrics.majority_score(["1/2", "1/3", "1/2", "1/3"], [1, 0, 1, 0]) == 1
    assert metrics.majority_score(["7", "8", "8", None], [1, 0, 0, 0]) == 0
    assert metrics.majority_score(["7", None, None, None], [1, 0, 0, 0]) == 1
    assert metrics.majority_score([None, None], [0, 0]) == 0.0


def test_golden_standard_error_is_clustered_by_question() -> None:
    assert np.mean(MEANS) == 0.453125
    assert metrics.standard_error(MEANS) == pytest.approx(0.1492868, abs=1e-7)
    low, high = metrics.interval_95(MEANS)
    assert (low, high) == pytest.approx((0.453125 - 1.96 * 0.1492868, 0.453125 + 1.96 * 0.1492868), abs=1e-6)
    assert math.isnan(metrics.standard_error([0.5]))


def test_more_samples_of_a_question_are_not_more_questions() -> None:
    scores = np.array([[1, 0], [1, 1], [0, 0]])
    copied = np.repeat(scores, 10, axis=1)
    once, often = (metrics.standard_error(s.mean(axis=1)) for s in (scores, copied))
    assert once == often


def test_golden_diversity() -> None:
    pair = [["a b c d e", "a b c d f"]]
    assert metrics.ngram_diversity(pair, 2) == pytest.approx(0.4)
    assert metrics.ngram_diversity(pair, 4) == pytest.approx(2 / 3)
    assert metrics.ngram_diversities(pair) == {n: metrics.ngram_diversity(pair, n) for n in (1, 2, 3, 4)}


def test_diversity_at_its_ends() -> None:
    assert metrics.ngram_diversity([["a b c d e", "A B C D E"]]) == 0.0
    assert metrics.ngram_diversity([["a b c d e", "f g h i j"]]) == 1.0
    assert metrics.ngram_diversity([["a b", "c d"]]) == 0.0
    assert metrics.ngram_diversity([["a b", "a b c d"]]) == 1.0
    assert metrics.ngram_diversity([["alone"]]) is None
    assert metrics.ngram_diversity([["alone"], ["a b c d e", "f g h i j"]]) == 1.0


def test_diversity_counts_repeated_ngrams() -> None:
    """Unigrams a:3 against a:1, b:2: minima 1, maxima 5."""
    assert metrics.ngram_diversity([["a a a", "a b b"]], 1) == pytest.approx(0.8)


def test_diversity_splits_signs_and_averages_pairs_before_questions() -> None:
    texts = ["x=1", "x = 1", "y!"]
    pairs = [metrics.ngram_diversity([list(pair)], 1) for pair in combinations(texts, 2)]
    assert pairs == [0.0, 1.0, 1.0]
    assert metrics.ngram_diversity([texts, ["a", "b"]], 1) == pytest.approx((2 / 3 + 1) / 2)


@given(st.lists(st.text("ab ", max_size=12), min_size=2, max_size=4), st.integers(1, 4))
def test_diversity_is_a_fraction_and_ignores_order(texts: list[str], n: int) -> None:
    value = metrics.ngram_diversity([texts], n)
    assert value is not None and 0.0 <= value <= 1.0
    assert metrics.ngram_diversity([texts[::-1]], n) == pytest.approx(value)


def test_suite_averages_are_plain_means() -> None:
    """(20 + 30 + 70) / 3 = 40, and the errors 3, 4, 12 add up to 13 in squares, a third of it for the mean."""
    rows = [
        {"benchmark": name, "avg": avg, "standard_error": error}
        for name, avg, error in (("gpqa_diamond", 20, 3), ("arc_challenge", 30, 4), ("mmlu_pro", 70, 12))
    ]
    assert suite_averages(rows) == {"OOD average": {"avg": 40.0, "standard_error": pytest.approx(13 / 3)}}
    assert list(suite_averages(rows[:2])) == ["OOD average (2 of 3)"]
    assert suite_averages(rows[:1]) == {}
    assert suite_averages([{**rows[0], "avg": None}, *rows[1:]])["OOD average (2 of 3)"]["avg"] == 50.0


def test_the_self_check_passes_and_notices_a_broken_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics.self_check()
    monkeypatch.setattr(metrics, "pass_at_k", lambda n, c, k: c / n)
    with pytest.raises(RuntimeError, match=r"self-check of Pass@k"):
        metrics.self_check()


def test_the_spread_of_a_ratio_is_that_of_its_bootstrap() -> None:
    """Entropy over tokens: long completions count more, and have a higher entropy here."""
    rng = np.random.default_rng(7)
    tokens = rng.integers(5, 200, 300)
    sums = tokens * (0.2 + tokens / 500 + rng.normal(0, 0.05, 300))
    values = metrics.ratio_values(sums, tokens)
    assert values.mean() == pytest.approx(sums.sum() / tokens.sum())
    drawn = rng.integers(0, 300, (4000, 300))
    assert metrics.standard_error(values) == pytest.approx((sums[drawn].sum(1) / tokens[drawn].sum(1)).std(), rel=0.05)
