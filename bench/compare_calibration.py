"""How often `curiosft compare` calls two equal models different: the share of p-values below 0.05.

Prints one JSON line. Both models have the same chance of success on each question, drawn from a U-shaped
distribution as benchmarks have it; the paired bootstrap and the z-test of the paired difference see the same data.
"""

from __future__ import annotations

import argparse
import json
import math

import numpy as np

from curiosft_cli.evaluation.bootstrap import paired_bootstrap
from curiosft_cli.evaluation.metrics import NORMAL_95, standard_error


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, nargs="+", default=[30, 100, 500])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--trials", type=int, default=1000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    found = {}
    for questions in options.questions:
        bootstrap = z_test = 0
        for trial in range(options.trials):
            chance = rng.beta(0.5, 0.5, questions)
            a, b = (rng.binomial(options.samples, chance) / options.samples for _ in range(2))
            bootstrap += paired_bootstrap({"x": (a, b)}, trial, draws=1000).p < 0.05
            mean, error = float((b - a).mean()), standard_error(b - a)
            z_test += error > 0 and abs(mean) > NORMAL_95 * error and not math.isnan(error)
        found[str(questions)] = {"bootstrap": bootstrap / options.trials, "z_test": z_test / options.trials}
    print(json.dumps({"bench": "compare_calibration", "samples": options.samples, "false_positives": found}))


if __name__ == "__main__":
    main()
