"""Memory, time and weights of `curiosft sft` with several CPU processes that hold a part of the model each.

The same steps of four short rows with each number of processes, one after another, through the real command. The peak
of a process is what Linux calls VmHWM, less that of a process that only imports what a training imports. Prints one
JSON line: for each number of processes the largest peak, its ratio to that of the first one, median seconds of the
steps after the first, and the largest difference of a weight from those of the first.

    python bench/shard_memory.py --model FOLDER [--processes 1 2 4] [--recipe curio] [key=value ...]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GIB = 2**30
SETTINGS = (
    *("data.train=arithmetic:train:12", "model.system_prompt=''", "sft.precision=float32", "sft.batch_size=4"),
    *("sft.max_steps=3", "sft.max_response_length=64", "sft.max_tokens_per_batch=128", "sft.head_chunk=128"),
    *("sft.learning_rate=1e-5", "sft.warmup_steps=0", "sft.adam_epsilon=1e-4", "launch.threads=1"),
)
IMPORTS = (
    "import peft, torch, transformers, accelerate, torch.distributed.fsdp, torch.distributed.tensor;"
    "from transformers import Qwen2ForCausalLM, LlamaForCausalLM; import curiosft_cli.stages.bookkeeping;"
    "import curiosft_cli.train.suppliers; print(open('/proc/self/status').read())"
)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--recipe", default="curio")
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args()
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    imports = peak_gib(done.stdout)
    with tempfile.TemporaryDirectory() as folder:
        runs = {count: measure(count, options, Path(folder)) for count in options.processes}
        for count, run in runs.items():
            run["above_imports_gib"] = round(run["peak_gib"] - imports, 3)
            run["of_one"] = round(run["above_imports_gib"] / runs[options.processes[0]]["above_imports_gib"], 3)
            run["weights"] = difference(Path(folder), options.processes[0], count)
    print(json.dumps({"recipe": options.recipe, "imports_gib": round(imports, 3), "processes": runs}))


def measure(count: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Train with `count` processes."""
    own = [f"model.path={options.model}", f"run.root={folder}", f"run.name=of-{count}", f"launch.processes={count}"]
    chosen = {setting.partition("=")[0]: setting for setting in [*SETTINGS, *own, *options.settings]}
    command = [sys.executable, "-m", "curiosft_cli.cli", "sft", options.recipe, *chosen.values()]
    child, peaks = subprocess.Popen(command), {}
    while child.poll() is None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"of-{count}/sft".encode() in (process / "cmdline").read_bytes():
                    peaks[process.name] = peak_gib((process / "status").read_text())
            except (OSError, TypeError):  # it has ended
                continue
        time.sleep(0.05)
    if child.returncode:
        raise SystemExit(child.returncode)
    rows = [json.loads(line) for line in (folder / f"of-{count}/sft/metrics.jsonl").read_text().splitlines()]
    step_s = statistics.median(row["time/step_s"] for row in rows[1:])
    return {"peak_gib": round(max(peaks.values()), 3), "step_s": round(step_s, 2)}


def peak_gib(status: str) -> float:
    """VmHWM of a process, from its status."""
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / GIB if found else 0.0


def difference(folder: Path, one: int, other: int) -> float:
    """Largest difference of a weight after the last step."""
    from safetensors.torch import load_file

    saved = [sorted(folder.glob(f"of-{count}/sft/checkpoint-*/model.safetensors"))[-1] for count in (one, other)]
    first, second = map(load_file, saved)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
