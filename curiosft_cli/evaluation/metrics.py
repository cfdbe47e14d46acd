"""Estimators: Pass@k, Maj@k, standard errors, n-gram diversity.

A score is 1 for a right sample and 0 for a wrong one. Results are fractions, not percent. Q is the number of questions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curiosft_cli.run.errors import CurioError

NORMAL_95 = 1.96

_TOKEN = re.compile(r"\w+|[^\w\s]")
# (samples, right ones, k, Pass@k), by exact fractions: 1/4, 11/14, 1 - C(7,5)/C(10,5), 1 - C(29,8)/C(32,8).
_KNOWN_PASS = ((8, 0, 1, 0.0), (8, 2, 1, 1 / 4), (8, 2, 4, 11 / 14), (8, 1, 8, 1.0), (10, 3, 5, 11 / 12))
_KNOWN_PASS += ((32, 3, 8, 1 - 4292145 / 10518300),)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return the unbiased chance that at least one of k samples is right, where `correct` of n are right.

    1 - C(n - c, k) / C(n, k), computed as 1 - prod_{i = n-c+1..n} (1 - k / i).
    """
    if not 0 <= correct <= n or k < 1:
        raise CurioError(f"pass@{k} of n={n}, correct={correct}", "give 0 <= correct <= n and k >= 1")
    if k > n:
        raise CurioError(f"pass@{k} needs at least {k} samples per question, found {n}", "draw more samples")
    if n - correct < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - correct + 1, n + 1)))


def no_signal(n: int, correct: int, k: int) -> float:
    """Return the chance that k of n samples, of which `correct` are right, are all right or all wrong.

    A group of k such rollouts has no advantage, so GRPO learns nothing from it. It is C(c, k) / C(n, k) and
    C(n - c, k) / C(n, k) together.
    """
    return 2.0 - pass_at_k(n, correct, k) - pass_at_k(n, n - correct, k)


def self_check(tolerance: float = 1e-9) -> None:
    """Check the estimators on cases of known value. It is cheap, so every evaluation begins with it.

    Raises:
        RuntimeError: an estimator is broken.
    """
    found = {
        "Pass@k": [pass_at_k(n, c, k) for n, c, k, _ in _KNOWN_PASS],
        "standard error": [standard_error([1, 0, 1, 0])],
        "Maj@k": [majority_score(["5", "4", "4"], [0, 1, 1])],
        "diversity": [ngram_diversity([["a b c d e", "a b c d f"]], 2)],
    }
    known = {
        "Pass@k": [value for *_, value in _KNOWN_PASS],
        "standard error": [3**-0.5 / 2],
        "Maj@k": [1.0],
        "diversity": [0.4],
    }
    for name, values in found.items():
        if not np.allclose(np.array(values, dtype=float), known[name], rtol=0, atol=tolerance):
            raise RuntimeError(f"the self-check of {name} failed: found {values}, known {known[name]}")


def majority_score(answers: Sequence[Hashable | None], scores: Sequence[float]) -> float:
    """Return the score of the most frequent answer to a question; Maj@k is its mean over questions.

    A missing answer has no vote. The earlier answer wins a tie. An answer has the score of its first sample.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    return scores[answers.index(votes.most_common(1)[0][0])] if votes else 0.0


def standard_error(means: ArrayLike) -> float:
    """Return the standard error of the mean of [Q] question means; nan for one question.

    It is the standard deviation (with Q - 1) over sqrt(Q). The question is the unit, because samples of one question
    are not independent.
    """
    values = np.asarray(means, dtype=np.float64)
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")


def ratio_values(sums: ArrayLike, counts: ArrayLike) -> NDArray[np.float64]:
    """Return [Q] values whose mean is sum(sums) / sum(counts), and whose spread gives this ratio's standard error.

    They are the ratio plus the influence of each question on it (the delta method). An entropy over tokens is such a
    ratio: a question with long completions counts more.
    """
    totals, sizes = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    ratio = totals.sum() / sizes.sum()
    return ratio + (totals - ratio * sizes) / sizes.mean()


def interval_95(means: ArrayLike) -> tuple[float, float]:
    """Return the 95 % interval of the mean over questions."""
    center, margin = float(np.asarray(means, dtype=np.float64).mean()), NORMAL_95 * standard_error(means)
    return center - margin, center + margin


def ngram_diversity(samples: Sequence[Sequence[str]], n: int = 4) -> float | None:
    """Return 1 minus the mean similarity of the pairs of samples of a question, averaged over questions.

    The similarity of two texts is the multiset Jaccard of their n-grams: the sum of minima over the sum of maxima.
    Tokens are lower-cased words and signs. Two texts without n-grams have similarity 1. None if no question has two
    samples.
    """
    return ngram_diversities(samples, (n,))[n]


def ngram_diversities(
    samples: Sequence[Sequence[str]], orders: Sequence[int] = (1, 2, 3, 4)
) -> dict[int, float | None]:
    """Return `ngram_diversity` for each order."""
    values = [_diversities(texts, orders) for texts in samples if len(texts) > 1]
    return {n: float(np.mean([row[n] for row in values])) if values else None for n in orders}


def _diversities(texts: Sequence[str], orders: Sequence[int]) -> dict[int, float]:
    """1 minus the mean similarity of the pairs of texts, for each order."""
    numbers: dict[str, int] = {}
    tokens = [
        np.array([numbers.setdefault(token, len(numbers)) for token in _TOKEN.findall(text.lower())], dtype=np.int64)
        for text in texts
    ]
    codes, diversities = tokens, {}
    for n in range(1, max(orders) + 1):
        if n > 1:
            codes = [row[:-1] * len(numbers) + last[n - 1 :] for row, last in zip(codes, tokens, strict=True)]
        # Codes are numbered anew at each order, so that they stay below (n-grams) x (words).
        lengths = [len(row) for row in codes]
        known, inverse = np.unique(np.concatenate(codes), return_inverse=True)
        codes = np.split(inverse, np.cumsum(lengths)[:-1])
        if n in orders:
            diversities[n] = 1.0 - _mean_similarity(codes, len(known))
    return diversities


def _mean_similarity(codes: Sequence[NDArray[np.int64]], kinds: int) -> float:
    """The mean multiset Jaccard of the pairs of texts; a text is the codes of its n-grams, all below `kinds`."""
    counts = np.array([np.bincount(row, minlength=kinds) for row in codes], dtype=np.int32)  # [texts, kinds]
    similarities = []
    for first in range(len(counts) - 1):
        shared = np.minimum(counts[first], counts[first + 1 :]).sum(axis=1)
        union = counts[first].sum() + counts[first + 1 :].sum(axis=1) - shared
        similarities += [
            1.0 if not both else both_shared / both for both_shared, both in zip(shared, union, strict=True)
        ]
    return float(np.mean(similarities))
