"""Is one method better than another? A paired test over questions and runs, Holm's correction, a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curiosft_cli.run.errors import CurioError

DRAWS = 10_000
LEVEL = 0.05
FEWEST_QUESTIONS = 10

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """A difference of two means over the same questions.

    Attributes:
        mean: b - a.
        low: lower end of the 95 % interval; -inf where a few questions cannot bound it.
        high: upper end of the 95 % interval, or inf.
        p: two-sided p-value, not corrected for several comparisons. It is below 0.05 exactly where the interval does
            not hold 0 (or the margin).
        questions: number of questions of its smallest benchmark.
        identical: no question differs.
    """

    mean: float
    low: float
    high: float
    p: float
    questions: int
    identical: bool


def paired_difference(
    pairs: Mapping[str, tuple[ArrayLike, ArrayLike]], seed: int, *, margin: float = 0.0, draws: int = DRAWS
) -> PairedDifference:
    r"""Compare b with a over one benchmark, or over the plain mean of several.

    Questions: if the difference is \delta, then each question's difference minus \delta is as likely positive as
    negative. So each draw gives these values random signs, and p(\delta) is the share of draws whose mean is at least
    as far from 0 as the observed one. The interval is every \delta with p(\delta) >= 0.05. No draw has to be repeated
    for another \delta: the mean of a draw is linear in it, so each draw accepts one interval of \delta.

    Runs: where a method has several runs (seeds), each draw also adds an error of the runs: Student's t, with the
    variance between the runs of a method. Three runs are too few to be resampled: the spread would come out too small.

    Args:
        pairs: benchmark -> (a, b): the values [Q] of one run, or [runs, Q], with the same questions in the same order.
        seed: seed of the draws.
        margin: p asks whether the difference is beyond +-margin; if it is observed within, whether it is within.
        draws: number of draws.
    """
    runs = {name: _runs(name, *pair) for name, pair in pairs.items()}
    if not runs:
        raise CurioError("there is nothing to compare", "Give results that share a benchmark")
    differences = {name: b.mean(axis=0) - a.mean(axis=0) for name, (a, b) in runs.items()}
    observed = float(np.mean([values.mean() for values in differences.values()]))
    rng = np.random.default_rng(seed)
    # Benchmarks may differ in their means: what is tested is the mean of these alone.
    flips = [_flipped(values - values.mean() + observed, rng, draws) for values in differences.values()]
    means, signs = (np.mean(found, axis=0) for found in zip(*flips, strict=True))
    means = means + _run_errors(list(runs.values()), rng, draws)
    lows, highs = _accepted(observed, means, signs)
    return PairedDifference(
        observed,
        *_interval(lows, highs),
        _p_value(lows, highs, observed, margin),
        min(values.size for values in differences.values()),
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


def verdict(difference: PairedDifference, corrected_p: float, margin: float = 0.0, level: float = LEVEL) -> str:
    """The verdict in words.

    It is "better", "worse", "no evidence", "identical", "too few questions", or, with a margin, "too small to matter".
    """
    if difference.identical:
        return "identical"
    if difference.questions < FEWEST_QUESTIONS:
        return "too few questions"
    if corrected_p >= level:
        return "no evidence"
    if abs(difference.mean) <= margin:
        return "too small to matter"
    return "better" if difference.mean > 0 else "worse"


def _runs(name: str, a: ArrayLike, b: ArrayLike) -> tuple[Values, Values]:
    first, second = (np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (a, b))
    if first.shape[1:] != second.shape[1:] or first.ndim != 2 or not (first.size and second.size):
        raise CurioError(
            f"{name}: paired values have the shapes {first.shape} and {second.shape}", "Pair the questions"
        )
    return first, second


def _flipped(
    values: Values, rng: np.random.Generator, draws: int, most_cells: int = 10_000_000
) -> tuple[Values, Values]:
    """[draws] means of the values with random signs, and of the signs alone.

    Scores have few levels: the questions of one level share a binomial count. That is slower where most values differ.
    """
    levels, counts = np.unique(values, return_counts=True)
    grouped = 2 * levels.size < values.size
    if not grouped:
        levels, counts = values, np.ones(values.size, dtype=np.int64)
    means, signs = np.empty(draws), np.empty(draws)
    rows = max(1, most_cells // levels.size)
    for start in range(0, draws, rows):
        end = min(draws, start + rows)
        shape = (end - start, levels.size)
        positive = rng.binomial(counts, np.array(0.5), shape) if grouped else rng.integers(0, 2, shape, np.int8)
        means[start:end] = (2 * (positive @ levels) - counts @ levels) / values.size
        signs[start:end] = (2 * positive.sum(axis=1) - values.size) / values.size
    return means, signs


def _run_errors(runs: Sequence[tuple[Values, Values]], rng: np.random.Generator, draws: int) -> Values:
    """[draws] errors of the difference that come from the runs; 0 where no method has two of them."""
    means = [np.mean([pair[side].mean(axis=1) for pair in runs], axis=0) for side in (0, 1)]  # [runs] of a, of b
    freedom = sum(values.size - 1 for values in means)
    if not freedom:
        return np.zeros(draws)
    variance = sum(float(((values - values.mean()) ** 2).sum()) for values in means) / freedom
    return rng.standard_t(freedom, draws) * np.sqrt(variance * sum(1 / values.size for values in means))


def _accepted(observed: float, means: Values, signs: Values, tolerance: float = 1e-12) -> tuple[Values, Values]:
    r"""The ends of what each draw accepts: every \delta with abs(mean - \delta * sign) >= abs(observed - \delta)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([(observed - means) / (1 - signs), (observed + means) / (1 + signs)])
    unbounded = np.abs(signs) == 1  # nothing was flipped, or everything
    return (
        np.where(unbounded, -np.inf, ends.min(axis=0) - tolerance),
        np.where(unbounded, np.inf, ends.max(axis=0) + tolerance),
    )


def _interval(lows: Values, highs: Values, decimals: int = 11) -> tuple[float, float]:
    """The interval in which p is at least the level."""
    last = int(np.ceil(LEVEL * (1 + lows.size) - 1)) - 1  # one more draw that accepts, and p reaches the level
    low, high = np.partition(lows, last)[last], -np.partition(-highs, last)[last]
    return float(np.round(low, decimals)) + 0.0, float(np.round(high, decimals)) + 0.0


def _p_value(lows: Values, highs: Values, observed: float, margin: float) -> float:
    """p at 0; with a margin, at the nearer end of it."""

    def share(difference: float) -> float:
        # Plus one, because the observed data are one possible draw. So p is never 0.
        return (1 + int(((lows <= difference) & (difference <= highs)).sum())) / (1 + lows.size)

    if abs(observed) > margin:
        return share(float(np.copysign(margin, observed)))
    return max(share(-margin), share(margin))
