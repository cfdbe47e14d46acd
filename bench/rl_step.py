"""Whole GRPO steps (sample, grade, update, hand over): `curiosft rl` and, beside it, TRL's GRPOTrainer.

Each run is a process of its own; processes run in turn, round after round, with the same threads, on the same prompts
with Table 7's system message, and medians are compared. `rest_share` is the share of our step outside generation and
gradient. `--prompts 8 64` also shows how the step grows.

    python bench/rl_step.py --model PATH [--peer peer/bin/python] [--prompts 8] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from curiosft_cli.data.arithmetic import generate
from curiosft_cli.data.prompts import messages
from curiosft_cli.run.files import read_jsonl

PREFIX = "Here is the question: "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer", help="Python of an environment made from bench/requirements-peer.txt")
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--prompts", type=int, nargs="+", default=[8])
    for name, default in (("group", 8), ("max_new", 64), ("steps", 2), ("warmup", 1), ("rounds", 1), ("micro", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--top_p", type=float, default=0.95)
    options = parser.parse_args()
    report: dict[str, Any] = {"options": vars(options), "threads": os.environ.get("OMP_NUM_THREADS")}
    for prompts in options.prompts:
        seen: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.rounds):
            seen.setdefault("curiosft", []).append(ours(options, prompts))
            if options.peer:
                seen.setdefault("trl", []).append(peer(options, prompts))
        summary: dict[str, Any] = {name: merged(runs) for name, runs in seen.items()}
        report[str(prompts)] = summary
        if "trl" in summary:
            summary["trl_over_curiosft"] = summary["trl"]["step_s"] / summary["curiosft"]["step_s"]
    print(json.dumps(report))


def ours(options: argparse.Namespace, prompts: int) -> dict[str, Any]:
    """Metrics of `curiosft rl`, step by step after the warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "run.root": folder,
            "model.path": str(Path(options.model).resolve()),
            "data.train": '["arithmetic:train:256"]',
            "rl.init": "base",
            "rl.preflight": "off",
            "rl.precision": options.precision,
            "rl.steps": options.steps + options.warmup,
            "rl.prompts_per_step": prompts,
            "rl.mini_batch_prompts": prompts,
            "rl.num_generations": options.group,
            "rl.max_completion_length": options.max_new,
            "rl.max_tokens_per_batch": 2048,
            "rl.top_p": options.top_p,
        }
        file = Path(folder) / "bench.toml"
        file.write_text('[run]\nname = "bench"\n', encoding="utf-8")
        command = [sys.executable, "-m", "curiosft_cli.cli", "rl", str(file)]
        subprocess.run(
            [*command, *(f"{key}={value}" for key, value in settings.items())], check=True, stdout=sys.stderr
        )
        rows = list(read_jsonl(Path(folder) / "bench" / "rl" / "metrics.jsonl"))[options.warmup :]
    work = [row["time/sample_s"] + row["time/old_s"] + row["time/student_s"] + row["time/optimizer_s"] for row in rows]
    return {
        "step_s": [row["time/step_s"] for row in rows],
        "rest_share": [1 - spent / row["time/step_s"] for spent, row in zip(work, rows, strict=True)],
        "handover_s": [row["time/handover_s"] for row in rows],
        "sample_s": [row["time/sample_s"] for row in rows],
        "train_s": [row["time/train_s"] for row in rows],
        "peak_gib": rows[-1]["memory/peak_gib"],
    }


def peer(options: argparse.Namespace, prompts: int) -> dict[str, Any]:
    """TRL's steps after the warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "prompts.jsonl"
        with data.open("w", encoding="utf-8") as lines:
            for problem in generate("train", 256, 0):
                row = {"prompt": messages(problem, system=None, prefix=PREFIX), "answer": problem.answer}
                lines.write(json.dumps(row) + "\n")
        given = {"model": Path(options.model).resolve(), "data": data, "prompts": prompts, "top_p": options.top_p}
        for name in ("precision", "group", "max_new", "steps", "warmup", "micro"):
            given[name] = getattr(options, name)
        command = [options.peer, str(Path(__file__).parent / "peer_grpo.py")]
        arguments = [f"--{key}={value}" for key, value in given.items()]
        done = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def merged(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over steps and rounds; the most memory."""
    lists = {
        name: [value for run in runs for value in run[name]]
        for name, first in runs[0].items()
        if isinstance(first, list)
    }
    return {
        **{name: median(values) for name, values in lists.items()},
        "peak_gib": max(run["peak_gib"] for run in runs),
    }


if __name__ == "__main__":
    main()
