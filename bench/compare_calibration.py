"""How often `curiosft compare` errs, by simulation: false alarms, coverage of its intervals, and what it finds.

Prints one JSON line per case. Each question has a chance of success from a U-shaped distribution, as benchmarks have
it. On the logits of these chances, a method adds its effect (and that of b moves its mean score by about `gain`), each
of its runs an error of its own (`runs_sd`), and each run on each question another one (`interaction_sd`). The truth is
the difference of the two methods' expected scores on these questions and on new runs.

`single_runs` is the share of p below 0.05 if one run of each method is compared, as if it were the method. `resampled`
is the same for a bootstrap that draws whole runs and questions again, without a correction for few runs.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from curiosft_cli.evaluation.paired import paired_difference

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One setting of the simulation; see above."""

    questions: int
    samples: int = 8
    runs: int = 1
    gain: float = 0.0
    runs_sd: float = 0.0
    interaction_sd: float = 0.0


CASES = (
    *(Case(questions, samples) for questions in (30, 100, 500) for samples in (1, 8)),
    *(Case(questions, gain=0.1) for questions in (30, 100, 500)),
    *(Case(200, runs=runs, runs_sd=0.2, interaction_sd=0.3) for runs in (1, 2, 3, 5)),
    Case(200, runs=3),
    *(Case(200, runs=3, gain=gain, runs_sd=0.2, interaction_sd=0.3) for gain in (0.1, 0.2)),
)


def chances(logits: Values, case: Case, effect: float, rng: np.random.Generator, runs: int) -> Values:
    """[runs, questions] chances of success."""
    errors = case.runs_sd * rng.standard_normal((runs, 1))
    errors = errors + case.interaction_sd * rng.standard_normal((runs, logits.size))
    return 1 / (1 + np.exp(-(logits + effect + errors)))


def resampled_p(a: Values, b: Values, rng: np.random.Generator, draws: int) -> float:
    """The plain bootstrap over runs and questions, for comparison."""
    observed = b.mean() - a.mean()
    weights = rng.multinomial(a.shape[1], np.full(a.shape[1], 1 / a.shape[1]), draws) / a.shape[1]
    means = [
        np.einsum("dr,dr->d", rng.multinomial(len(x), np.full(len(x), 1 / len(x)), draws) / len(x), weights @ x.T)
        for x in (a, b)
    ]
    return float(np.mean(np.abs(means[1] - means[0] - observed) >= abs(observed)))


def measure(case: Case, trials: int, draws: int) -> dict[str, float]:
    """The shares over the trials."""
    rng = np.random.default_rng(0)
    covered = found = single = resampled = 0
    for trial in range(trials):
        p = rng.beta(0.5, 0.5, case.questions).clip(0.002, 0.998)
        logits = np.log(p / (1 - p))
        effect = case.gain / float(np.mean(p * (1 - p)))  # the mean score moves by about `gain`
        a, b = (
            rng.binomial(case.samples, chances(logits, case, shift, rng, case.runs)) / case.samples
            for shift in (0.0, effect)
        )
        # The truth: many runs on a bench of questions of this kind.
        many = rng.beta(0.5, 0.5, 20_000).clip(0.002, 0.998)
        far = np.log(many / (1 - many))
        truth = 0.0
        if effect:
            truth = float(np.mean(chances(far, case, effect, rng, 20)) - np.mean(chances(far, case, 0.0, rng, 20)))
        one = paired_difference({"x": (a, b)}, trial, draws=draws)
        covered += one.low <= truth <= one.high
        found += one.p < 0.05
        if case.runs > 1:
            single += paired_difference({"x": (a[0], b[0])}, trial, draws=draws).p < 0.05
            resampled += resampled_p(a, b, rng, draws) < 0.05
    shares = {"coverage": covered / trials, "power" if case.gain else "false_alarms": found / trials}
    return shares | ({"single_runs": single / trials, "resampled": resampled / trials} if case.runs > 1 else {})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    for case in CASES:
        shares = measure(case, options.trials, options.draws)
        print(json.dumps({"bench": "compare_calibration", **asdict(case), **shares}), flush=True)


if __name__ == "__main__":
    main()
