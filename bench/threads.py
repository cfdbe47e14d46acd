"""Training tokens per second by number of threads and by how idle threads wait, on an idle and a busy machine.

`busy` means that as many other processes compute as there are cores. `active` waiting is OpenMP's own default: idle
threads spin. `passive` is what `curiosft` sets: they sleep. Each run is a process of its own that takes forward and
backward passes of one row until its time is over. Runs take turns, round after round. Prints one JSON line with
medians.

    python bench/threads.py [--model PATH] [--rounds 3] [--seconds 8]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from itertools import product
from statistics import median

from curiosft_cli.run.packaged_model import unpacked_folder
from curiosft_cli.run.processes import usable_cores

SPIN = "while True: pass"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=str(unpacked_folder()), help="folder of a model; without it, the quickstart's"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a run, after one pass that is not measured")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(tokens_per_second(options))
        return
    cores, load = usable_cores(), os.getloadavg()[0]
    seen: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for place, waiting, threads in product(("idle", "busy"), ("active", "passive"), sorted({1, cores})):
            rate = run(waiting, threads, cores if place == "busy" else 0)
            seen[f"{place}, {waiting}, {threads} threads"].append(rate)
    rates = {name: round(median(values), 1) for name, values in seen.items()}
    print(json.dumps({"measured": "tokens/s, median", "cores": cores, "load_before": round(load, 1), **rates}))


def run(waiting: str, threads: int, spinning: int) -> float:
    """Tokens per second of one process, beside `spinning` processes that compute."""
    with ExitStack() as others:
        for _ in range(spinning):
            other = others.enter_context(subprocess.Popen([sys.executable, "-c", SPIN]))
            others.callback(other.kill)
        own = {"OMP_WAIT_POLICY": waiting, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, *sys.argv[1:], "--measure"]
        return float(subprocess.check_output(command, env=os.environ | own, stderr=subprocess.DEVNULL))


def tokens_per_second(options: argparse.Namespace) -> float:
    """Of the passes that this process takes in its time; at least one."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16)
    ids = torch.arange(100, 100 + options.tokens)[None]
    passes, started = -1, time.perf_counter()
    while passes < 1 or time.perf_counter() - started < options.seconds:
        if passes == 0:
            started = time.perf_counter()
        model(ids, labels=ids).loss.backward()
        passes += 1
    return passes * options.tokens / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
