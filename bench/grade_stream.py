"""`curiosft grade` on many rows: time and peak memory at two sizes, one run each in a process of its own.

Prints one JSON line: linear means that ten times the rows take ten times as long, bounded that memory stays.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grader import question


def write_rows(path: Path, rows: int, samples: int) -> None:
    """Write `rows` short boxed responses, `samples` to a question."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows // samples):
            gold, answers = question(rng)
            for _ in range(samples):
                response = f"{'Let me think. ' * 40}\n</think>\nSo the answer is $\\boxed{{{rng.choice(answers)}}}$."
                file.write(json.dumps({"id": str(number), "response": response, "gold": gold, "kind": "math"}) + "\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in options.rows:
            file, out = Path(folder) / "rows.jsonl", Path(folder) / "graded.jsonl"
            write_rows(file, rows, options.samples)
            command = [sys.executable, "-m", "curiosft_cli.cli", "grade", str(file), "--out", str(out)]
            start = time.perf_counter()
            with (Path(folder) / "log.txt").open("w+") as log:
                child = subprocess.Popen(
                    [*command, "--workers", str(options.workers)], stdout=subprocess.DEVNULL, stderr=log
                )
                _, status, usage = os.wait4(child.pid, 0)
                log.seek(0)
                lines = sum("rows graded" in line for line in log)
            assert status == 0, status
            seconds = time.perf_counter() - start
            peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
            found.append({"rows": rows, "seconds": round(seconds, 1), "rows_per_s": round(rows / seconds)})
            found[-1] |= {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1), "progress_lines": lines}
            found[-1]["peak_mib_of_largest_process"] = round(peak)
    print(json.dumps({"bench": "grade_stream", "workers": options.workers, "runs": found}))


if __name__ == "__main__":
    main()
