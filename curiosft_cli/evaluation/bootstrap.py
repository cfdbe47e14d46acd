"""Is one model better than another? Paired bootstrap over questions, Holm's correction, a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curiosft_cli.run.errors import CurioError

DRAWS = 10_000
LEVEL = 0.05
FEWEST_QUESTIONS = 10


@dataclass(frozen=True)
class PairedDifference:
    """A difference of two means over the same questions.

    Attributes:
        mean: b - a.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        p: two-sided p-value, not corrected for several comparisons.
        questions: number of questions of its smallest benchmark.
        identical: no question differs.
    """

    mean: float
    low: float
    high: float
    p: float
    questions: int
    identical: bool


def paired_bootstrap(
    pairs: Mapping[str, tuple[ArrayLike, ArrayLike]], seed: int, draws: int = DRAWS
) -> PairedDifference:
    """Compare b with a over one benchmark, or over the plain mean of several.

    Each draw resamples the Q questions of a benchmark with replacement, the same ones for both models. The variance of
    a resample is too small by (Q - 1) / Q, so deviations from the observed difference are multiplied by
    sqrt(Q / (Q - 1)). The interval is the observed difference plus the quantiles of the deviations. p is the share of
    deviations that are at least as large as the observed difference.

    Args:
        pairs: benchmark -> (means of a, means of b), each [Q] with the same questions in the same order.
        seed: seed of the draws.
        draws: number of resamples.
    """
    differences = {name: _difference(name, *pair) for name, pair in pairs.items()}
    if not differences:
        raise CurioError("there is nothing to compare", "Give results that share a benchmark")
    observed = float(np.mean([values.mean() for values in differences.values()]))
    rng = np.random.default_rng(seed)
    deviations = np.mean([_deviations(values, rng, draws) for values in differences.values()], axis=0)
    low, high = np.quantile(deviations, [LEVEL / 2, 1 - LEVEL / 2])
    # Plus one, because the observed data are one possible draw. So p is never 0.
    p = (1 + int(np.sum(np.abs(deviations) >= abs(observed) - 1e-12))) / (1 + draws)
    return PairedDifference(
        observed,
        observed + float(low),
        observed + float(high),
        p,
        min(len(values) for values in differences.values()),
        all(not values.any() for values in differences.values()),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number: the chance of any false verdict among them stays below the level.

    In rising order, the i-th of m p-values (from 0) is multiplied by m - i. The results never fall and never exceed 1.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = highest
    return corrected


def verdict(difference: PairedDifference, corrected_p: float, level: float = LEVEL) -> str:
    """The verdict in words: "better", "worse", "no evidence", "identical", or "too few questions"."""
    if difference.identical:
        return "identical"
    if difference.questions < FEWEST_QUESTIONS:
        return "too few questions"
    if corrected_p >= level:
        return "no evidence"
    return "better" if difference.mean > 0 else "worse"


def _difference(name: str, a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise CurioError(f"{name}: paired means have the shapes {first.shape} and {second.shape}", "Pair the questions")
    return second - first


def _deviations(values: NDArray[np.float64], rng: np.random.Generator, draws: int) -> NDArray[np.float64]:
    """[draws] means of resamples minus the mean. Draws count distinct values, so that no [draws, Q] array is needed."""
    levels, counts = np.unique(values, return_counts=True)
    resampled = rng.multinomial(values.size, counts / values.size, size=draws) @ levels / values.size
    return (resampled - values.mean()) * np.sqrt(values.size / max(1, values.size - 1))
