"""The numbers of a report: Avg@k, Pass@k, Maj@k, their errors, and n-gram diversity.

Scores come in as [Q, n] arrays: Q questions, n samples of each, 1 right and 0 wrong. Means come out as fractions;
the report multiplies by 100.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curiosft_cli.run.errors import CurioError
from curiosft_cli.tasks.benchmarks import BENCHMARKS

NORMAL_95 = 1.96

_TOKEN = re.compile(r"\w+|[^\w\s]")


def avg_at_k(scores: ArrayLike) -> float:
    """Return the mean over questions of the mean over samples. `scores` is [Q, n]."""
    return float(question_means(scores).mean())


def question_means(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the mean score of each question, [Q], from [Q, n]."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise CurioError(
            f"scores have the shape {array.shape}, expected [questions, samples] with at least one of each",
            "give every question the same number of samples",
        )
    return array.mean(axis=1)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return the unbiased chance that k of n samples, `correct` of them right, hold a right one.

    1 - C(n - c, k) / C(n, k), computed as 1 - prod_{i = n-c+1..n} (1 - k / i).
    """
    if not 0 <= correct <= n or k < 1:
        raise CurioError(f"pass@{k} of n={n}, correct={correct}", "give 0 <= correct <= n and k >= 1")
    if k > n:
        raise CurioError(f"pass@{k} needs at least {k} samples per question, found {n}", "draw more samples")
    if n - correct < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - correct + 1, n + 1)))


def pass_curve(scores: ArrayLike, ks: Sequence[int] | None = None) -> dict[int, float]:
    """Return Pass@k for each k: the mean over questions. `ks` defaults to the powers of two up to n, and n."""
    n = np.asarray(scores).shape[-1]
    right = np.rint(question_means(scores) * n).astype(int)
    wanted = sorted({2**p for p in range(n.bit_length()) if 2**p <= n} | {n}) if ks is None else list(ks)
    return {k: float(np.mean([pass_at_k(n, int(c), k) for c in right])) for k in wanted}


def maj_at_k(
    answers: Sequence[Sequence[str | None]],
    scores: ArrayLike,
    match: Callable[[str, str], bool],
) -> float:
    """Return the share of questions whose most frequent answer is right.

    Answers that `match` are one candidate (each is compared with the first of a cluster); the earlier cluster wins a
    tie; a sample without an answer has no vote. The score of the winner is that of its first sample.
    """
    array = np.asarray(scores, dtype=np.float64)
    if len(answers) != len(array):
        raise CurioError(f"{len(answers)} questions have answers, {len(array)} have scores", "give both for each")
    return float(np.mean([_winner_score(*row, match) for row in zip(answers, array, strict=True)]))


def standard_error(means: ArrayLike) -> float:
    """Return the standard error of the mean of [Q] question means: sd (Q - 1) over sqrt(Q); nan for one question.

    Samples of one question are not independent, so the question is the unit.
    """
    values = np.asarray(means, dtype=np.float64)
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")


def interval_95(means: ArrayLike) -> tuple[float, float]:
    """Return the 95 % interval of the mean over questions."""
    center, margin = float(np.asarray(means, dtype=np.float64).mean()), NORMAL_95 * standard_error(means)
    return center - margin, center + margin


def paired_difference(a: ArrayLike, b: ArrayLike) -> tuple[float, float]:
    """Return (mean, standard error) of a - b over the same questions in the same order; both are [Q] means."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise CurioError(f"paired means have the shapes {first.shape} and {second.shape}", "pair the same questions")
    return float((first - second).mean()), standard_error(first - second)


def ngram_diversity(samples: Sequence[Sequence[str]], n: int = 4) -> float | None:
    """Return 1 minus the mean n-gram similarity of the pairs of samples of a question, averaged over questions.

    The similarity of two texts is the multiset Jaccard of their n-grams of lower-cased words and signs: the sum of
    minima over the sum of maxima; 1 when neither has an n-gram. None when no question has two samples.
    """
    values = [_diversity([_ngrams(text, n) for text in texts]) for texts in samples if len(texts) > 1]
    return float(np.mean(values)) if values else None


def ngram_diversities(
    samples: Sequence[Sequence[str]], orders: Sequence[int] = (1, 2, 3, 4)
) -> dict[int, float | None]:
    """Return `ngram_diversity` for each order; 4 is the headline."""
    return {n: ngram_diversity(samples, n) for n in orders}


def unique_answers(answers: Sequence[Sequence[str | None]], match: Callable[[str, str], bool] | None = None) -> float:
    """Return the mean number of different final answers of a question; missing answers do not count."""
    same = match or (lambda a, b: a == b)
    return float(np.mean([len(_clusters(row, same)) for row in answers]))


def suite_averages(accuracy: Mapping[str, float]) -> dict[str, float | None]:
    """Return the plain mean of the "id" sets (six) and of the "ood" sets (three); None where one is missing."""
    averages: dict[str, float | None] = {}
    for suite in ("id", "ood"):
        names = [name for name, benchmark in BENCHMARKS.items() if benchmark.suite == suite]
        complete = all(name in accuracy for name in names)
        averages[suite] = float(np.mean([accuracy[name] for name in names])) if complete else None
    return averages


def _clusters(answers: Sequence[str | None], match: Callable[[str, str], bool]) -> list[list[int]]:
    clusters: list[list[int]] = []
    for index, answer in enumerate(answers):
        if answer is None:
            continue
        home = next((c for c in clusters if _answers_match(answers[c[0]], answer, match)), None)
        if home is None:
            clusters.append([index])
        else:
            home.append(index)
    return clusters


def _answers_match(first: str | None, answer: str, match: Callable[[str, str], bool]) -> bool:
    return first is not None and (first == answer or match(first, answer))


def _winner_score(
    answers: Sequence[str | None], scores: NDArray[np.float64], match: Callable[[str, str], bool]
) -> float:
    clusters = _clusters(answers, match)
    return float(scores[max(clusters, key=len)[0]]) if clusters else 0.0


def _ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    tokens = _TOKEN.findall(text.lower())
    return Counter(zip(*(tokens[offset:] for offset in range(n)), strict=False))


def _diversity(counts: list[Counter[tuple[str, ...]]]) -> float:
    return 1.0 - float(np.mean([_similarity(a, b) for a, b in combinations(counts, 2)]))


def _similarity(a: Counter[tuple[str, ...]], b: Counter[tuple[str, ...]]) -> float:
    union = (a | b).total()
    return (a & b).total() / union if union else 1.0
