"""Reading and tokenising training data of two sizes: start-up, time per row once running, and memory.

Each size is a process of its own that opens the data as `curiosft sft` does and takes the rows of a number of steps;
the training itself is left out. Prints one JSON line.

    OMP_NUM_THREADS=1 python bench/feed.py --model PATH --sizes 1000 100000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a tokenizer with a chat template")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.data:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = {size: make_data(Path(folder) / f"{size}.jsonl", size) for size in options.sizes}
        runs: dict[int, list[dict[str, float]]] = {size: [] for size in files}
        for _ in range(options.rounds):
            for size, file in files.items():
                command = [sys.executable, __file__, f"--model={options.model}", f"--data={file}"]
                command += [f"--batch_size={options.batch_size}", f"--steps={options.steps}"]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                runs[size].append(json.loads(done.stdout.splitlines()[-1]))
        bytes_each = {size: file.stat().st_size for size, file in files.items()}
    small, large = (sorted(run["ms_per_row"] for run in runs[size])[len(runs[size]) // 2] for size in options.sizes[:2])
    told: dict[str, Any] = {"ms_per_row_large_over_small": round(large / small, 3)}
    for size, rows in runs.items():
        middle = sorted(rows, key=lambda run: run["startup_s"])[len(rows) // 2]
        told[str(size)] = {**middle, "file_mib": round(bytes_each[size] / 2**20, 1)}
    print(json.dumps(told))


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Open the data and take the rows of some steps."""
    from curiosft_cli.data.sources import read_source
    from curiosft_cli.run.sections import Model
    from curiosft_cli.train.encode import PromptFormat
    from curiosft_cli.train.feed import open_feed
    from curiosft_cli.train.load import load_tokenizer

    tokenizer = load_tokenizer(options.model, Model())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    problems = (problem for _, problem in read_source(options.data, run_dir=Path()))
    with tempfile.TemporaryDirectory() as folder:
        feed, _ = open_feed(
            *(tokenizer, problems, PromptFormat.from_config(Model()), Path(folder)),
            **{"max_prompt": 1024, "max_response": 8192, "batch_size": options.batch_size, "seed": 0},
        )
        opened = time.perf_counter()
        rows = [len(feed.rows(step)) for step in range(options.steps)]
        fed = time.perf_counter()
        feed.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "startup_s": round(opened - started, 2),
        "ms_per_row": round(1000 * (fed - opened) / sum(rows), 3),
        "memory_above_tokenizer_mib": round(peak - before, 1),
    }


def make_data(path: Path, rows: int, pairs: tuple[int, int] = (1, 6)) -> Path:
    """Questions with one to six worked problems as the response; a few hundred to a few thousand characters."""
    from curiosft_cli.data.arithmetic import generate

    pool = generate("train", 2000, seed=1)
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            chosen = draw.choices(pool, k=draw.randint(*pairs))
            response = "\n".join(problem.response for problem in chosen)
            row = {"problem": f"({number}) {chosen[0].question}", "solution": response, "answer": chosen[0].answer}
            file.write(json.dumps(row) + "\n")
    return path


if __name__ == "__main__":
    main()
