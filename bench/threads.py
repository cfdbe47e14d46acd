"""Tokens per second of `curiosft sft` by number of threads and by how idle threads wait, on an idle and a busy machine.

`busy` means that as many other processes compute as there are cores. `active` waiting is OpenMP's own default: idle
threads spin. `passive` is ours: they sleep. The runs take turns, round after round. Prints one JSON line with medians.

    python bench/threads.py [--model PATH] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median

from curiosft_cli.run.files import read_jsonl
from curiosft_cli.run.processes import usable_cores

SPIN = "while True: pass"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a model; without it, the quickstart's")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="measured steps of a run, after one that is not")
    options = parser.parse_args()
    cores = usable_cores()
    seen: dict[str, list[float]] = defaultdict(list)
    cases = list(product(("idle", "busy"), ("active", "passive"), sorted({1, cores})))
    for _ in range(options.rounds):
        for load, waiting, threads in cases:
            spinning = cores if load == "busy" else 0
            rate = tokens_per_second(options, waiting, threads, spinning)
            seen[f"{load}, {waiting}, {threads} threads"].append(rate)
            print(f"{load}, {waiting}, {threads} threads: {rate:.1f} tokens/s", file=sys.stderr, flush=True)
    rates = {name: round(median(values), 1) for name, values in seen.items()}
    print(json.dumps({"measured": "tokens/s, median", "cores": cores, "load_before": os.getloadavg()[0], **rates}))


def tokens_per_second(options: argparse.Namespace, waiting: str, threads: int, spinning: int) -> float:
    """Median over the steps of one run, beside `spinning` processes that compute."""
    with tempfile.TemporaryDirectory() as root, ExitStack() as others:
        for _ in range(spinning):
            other = others.enter_context(subprocess.Popen([sys.executable, "-c", SPIN]))
            others.callback(other.kill)
        settings = [f"run.root={root}", f"launch.threads={threads}", f"sft.max_steps={options.steps + 1}"]
        settings += ["data.train=arithmetic:train:128", "sft.batch_size=2"]
        settings += [f"model.path={Path(options.model).resolve()}"] if options.model else []
        command = [sys.executable, "-m", "curiosft_cli.cli", "sft", "quickstart", *settings]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_WAIT_POLICY": waiting})
        steps = list(read_jsonl(Path(root) / "quickstart" / "sft" / "metrics.jsonl"))
        return median(step["tokens/s"] for step in steps[1:])


if __name__ == "__main__":
    main()
