"""Grading and summarising saved samples: peak memory and rate at two numbers of questions, a process for each.

Prints one JSON line. Flat memory means that ten times the questions need no more than the few numbers kept of each;
`peak_mib_before` is what writing the questions and samples took in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grader import question

from curiosft_cli.data.records import Problem
from curiosft_cli.evaluation.samples import Generations, Sample, sample_row
from curiosft_cli.evaluation.score import score_samples
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.run.files import JsonLines


def measure(questions: int, samples: int, tokens: int) -> dict[str, float]:
    """Write samples of `tokens` tokens each, score them, and return what it took in this process."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        file, problems = Path(folder) / "samples.jsonl", []
        with JsonLines(file) as lines:
            for number in range(questions):
                gold, answers = question(rng)
                problems.append(Problem(str(number), "?", gold))
                for j in range(samples):
                    thought = " ".join(f"step{rng.randrange(1000)}" for _ in range(tokens // 2))
                    text = f"{thought}\n</think>\nSo the answer is $\\boxed{{{rng.choice(answers)}}}$."
                    ids = (rng.randrange(1000),) * tokens
                    lines.append(sample_row(str(number), j, Sample(text, tokens, "stop", ids)))
        peaks = [_peak_mib()]
        start, before = time.perf_counter(), sum(os.times()[:4])
        with GraderPool(1) as pool:
            generations = Generations(file, problems)
            arguments = (generations, problems, samples, Path(folder), pool)
            score_samples(*arguments, grader="curiosft", prefilled=True, pass_k=(1,), progress=lambda done, total: None)
        seconds, cpu_seconds = time.perf_counter() - start, sum(os.times()[:4]) - before
        peaks.append(_peak_mib())
        names = ("peak_mib_before", "peak_mib")
        return {"questions": questions, "seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1)} | {
            name: round(peak) for name, peak in zip(names, peaks, strict=True)
        }


def _peak_mib() -> float:
    """Peak memory of this process, without its graders."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.questions[0], options.samples, options.tokens)))
        return
    sizes = ["--samples", str(options.samples), "--tokens", str(options.tokens)]
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, __file__, "--child", "--questions", str(count), *sizes],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for count in options.questions
    ]
    print(json.dumps({"bench": "score_samples", "samples": options.samples, "tokens": options.tokens, "runs": runs}))


if __name__ == "__main__":
    main()
