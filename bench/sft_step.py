"""Whole supervised steps: ours (sft, curio, curio without a copy) and, beside them, TRL's SFTTrainer and a naive loop.

Each variant is a process of its own with one thread; processes run in turn, round after round, on the same rows, and
medians are compared. Tokens are prompt and response tokens; seconds are processor seconds of whole optimizer steps
(data, forward, backward, clipping, AdamW, synchronisation): the second epoch of as many rows as `--steps` steps take,
so that every variant is measured on every row, whatever its order. "naive" is CurioSFT with full logits, autograd,
`topk` and 15 bisections, row by row. Prints one JSON line.

    python bench/sft_step.py --model PATH [--peer peer/bin/python] [--naive] [--data ROWS.jsonl] [--rounds 3]

`--data` names rows with "prompt" and "completion" to take in place of generated ones, as many as an epoch has.
`--model q` makes a random Qwen2 with hidden size 128, 4 layers and a vocabulary of 151,936 (needs --tokenizer).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VARIANTS = {
    "sft": ["sft.objective=sft"],
    "curio": ["sft.objective=curio"],
    "curio_self": ["sft.objective=curio", "sft.teacher.kind=self"],
}
PEERS = ["trl", "trl_single", "trl_packed"]
"""The peer's micro-batches: `--micro_batch` padded rows, one row, one pack."""


def main() -> None:
    options = arguments()
    if options.worker:
        print(json.dumps(naive(options) if options.worker == "naive" else ours(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.model == "q":
            options.model = str(make_q(Path(folder) / "q", options.tokenizer))
        options.data = str(make_rows(Path(folder) / "rows.jsonl", options))
        names = [*VARIANTS, *(["naive"] if options.naive else []), *(PEERS if options.peer else [])]
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                runs[name].append(measure(name, options))
                print(f"{name}: {runs[name][-1]}", file=sys.stderr)
    print(json.dumps(summary(runs, options)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", help="folder of the tokenizer for --model q")
    parser.add_argument("--peer", help="Python of an environment made from bench/requirements-peer.txt")
    parser.add_argument("--naive", action="store_true", help="measure the naive loop too")
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--rows", type=int, default=4, help="per optimizer step")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--micro_batch", type=int, default=2, help="rows of one padded batch of the peer")
    parser.add_argument("--max_length", type=int, default=1024, help="tokens of a row, and of a pack of the peer")
    parser.add_argument("--pack", type=int, default=2048, help="tokens of one of our packs: two full rows")
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--data", help="rows to take in place of generated ones")
    options = parser.parse_args()
    options.warmup = options.steps  # the first epoch
    return options


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one variant in a process of its own."""
    here = Path(__file__).parent
    common = [f"--{key}={getattr(options, key)}" for key in ("model", "data", "precision", "rows", "steps")]
    micro_batch = 1 if name == "trl_single" else options.micro_batch
    common += [f"--micro_batch={micro_batch}", f"--max_length={options.max_length}"]
    if name.startswith("trl"):
        packing = ["--packing"] if name == "trl_packed" else []
        command = [options.peer, str(here / "peer_sft.py"), *common, f"--warmup={options.warmup}", *packing]
    else:
        command = [sys.executable, __file__, *common, f"--chunk={options.chunk}", f"--pack={options.pack}"]
        command.append(f"--worker={name}")
    from curiosft_cli.run.cpu_memory import memory_environment

    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if name in VARIANTS:  # as `curiosft sft` starts its processes
        environment = memory_environment() | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(options: argparse.Namespace) -> dict[str, float]:
    """The real stage, from its configuration to its last checkpoint; the clock is read after every update."""
    from curiosft_cli.run.config import load
    from curiosft_cli.run.rundir import RunDir, begin
    from curiosft_cli.stages import sft
    from curiosft_cli.train.loop import Loop

    marks: list[tuple[float, float]] = []
    report = Loop.report

    def marked(self: Loop) -> dict[str, float]:
        marks.append((time.process_time(), time.perf_counter()))
        return report(self)

    Loop.report = marked
    with tempfile.TemporaryDirectory() as folder:
        total = options.steps + options.warmup
        settings = [
            *(f"run.root={folder}", "run.name=bench", f"model.path={options.model}", f"data.train={options.data}"),
            *(
                f"sft.batch_size={options.rows}",
                f"sft.max_steps={total}",
                f"sft.max_tokens_per_batch={options.pack}",
            ),
            *(f"sft.head_chunk={options.chunk}", f"sft.precision={options.precision}", f"sft.save_steps={10 * total}"),
            *("model.system_prompt=''", "model.prefill=''", "sft.max_response_length=4096", "sft.warmup_steps=0"),
            "sft.guards.action=off",
        ]
        config = load("sft", [*settings, *VARIANTS[options.worker]]).config
        stage, _ = begin(RunDir(Path(folder) / "bench"), "sft", config)
        # The clock of step k is read before its report, so steps are measured from report to report.
        sft.run(config, stage)
        lines = [json.loads(line) for line in stage.metrics_file.read_text().splitlines()]
    (cpu_0, wall_0), (cpu_1, wall_1) = marks[options.warmup - 1], marks[-1]
    tokens = sum(line["tokens/s"] * line["time/step_s"] for line in lines[options.warmup :])
    return result(round(tokens), cpu_1 - cpu_0, wall_1 - wall_0)


def naive(options: argparse.Namespace) -> dict[str, float]:
    """CurioSFT as one would write it first: full logits of every position, one row at a time."""
    import copy

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from curiosft_cli.objectives.temperature import TemperatureSettings, solve_logits
    from curiosft_cli.objectives.tokens import label_logp

    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).train()
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    search = TemperatureSettings(search="bisect", iters=15, low_entropy_guard=None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    rows = [json.loads(line) for line in Path(options.data).read_text().splitlines()]
    marks, counts = [], []
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16")
    for step in range(options.steps + options.warmup):
        counts.append(0)
        first = step % options.steps * options.rows
        for row in rows[first : first + options.rows]:
            prompt = tokenizer.encode(row["prompt"])
            ids = torch.tensor([prompt + tokenizer.encode(row["completion"])])
            counts[-1] += ids.numel()
            with mixed:
                logits = model(ids).logits[0].float()
                with torch.no_grad():
                    other = teacher(ids).logits[0].float()
            keep, labels = slice(len(prompt) - 1, -1), ids[0, len(prompt) :]
            tau = solve_logits(other[keep], search).tau
            target = label_logp(other[keep] / tau[:, None], labels)
            logp = label_logp(logits[keep], labels)
            (-logp + 0.5 * (logp - target).square()).mean().div(options.rows).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        marks.append((time.process_time(), time.perf_counter()))
    (cpu_0, wall_0), (cpu_1, wall_1) = marks[options.warmup - 1], marks[-1]
    return result(sum(counts[options.warmup :]), cpu_1 - cpu_0, wall_1 - wall_0)


def result(tokens: int, cpu_s: float, wall_s: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"tokens": tokens, "cpu_s": cpu_s, "wall_s": wall_s, "peak_mib": peak}


def summary(runs: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds, and ratios of tokens per processor second."""
    speed = {name: statistics.median(run["tokens"] / run["cpu_s"] for run in rows) for name, rows in runs.items()}
    peak = {name: statistics.median(run["peak_mib"] for run in rows) for name, rows in runs.items()}
    told: dict[str, Any] = {
        "tokens_per_cpu_s": {name: round(value, 1) for name, value in speed.items()},
        "peak_mib": {name: round(value) for name, value in peak.items()},
        "curio_time_over_sft": round(speed["sft"] / speed["curio"], 3),
        "curio_self_time_over_sft": round(speed["sft"] / speed["curio_self"], 3),
        "precision": options.precision,
        "rows": options.rows,
        "chunk": options.chunk,
        "rounds": options.rounds,
    }
    if options.peer:
        best = max(speed[name] for name in PEERS)
        told |= {"sft_over_trl": round(speed["sft"] / best, 2), "curio_over_trl": round(speed["curio"] / best, 2)}
        told["curio_memory_over_trl"] = round(peak["curio"] / min(peak[name] for name in PEERS), 2)
    if options.naive:
        told["curio_memory_over_naive"] = round(peak["curio"] / peak["naive"], 2)
    return told


def make_rows(path: Path, options: argparse.Namespace, pairs: tuple[int, int] = (2, 9)) -> Path:
    """Prompt-completion rows of unequal length: several worked arithmetic problems one after another."""
    from curiosft_cli.data.arithmetic import generate

    count = options.rows * options.steps
    if options.data:
        lines = Path(options.data).read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:count]), encoding="utf-8")
        return path
    source = iter(generate("train", count * pairs[1], seed=5))
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            chosen = [next(source) for _ in range(draw.randint(*pairs))]
            text = "\n".join(f"{problem.question}\n{problem.response}" for problem in chosen[1:])
            row = {"prompt": chosen[0].question + "\n", "completion": f"{chosen[0].response}\n{text}"}
            file.write(json.dumps(row) + "\n")
    return path


def make_q(folder: Path, tokenizer_folder: str) -> Path:
    """Random, hidden 128, 4 layers, vocabulary 151,936, logits with a spread of about 2 and heavy-tailed row norms."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.normal_(0.0, 2.0 / 128**0.5)
        # Row norms of a trained vocabulary: a few frequent tokens, many rare ones.
        model.lm_head.weight.mul_(torch.empty(151936, 1).exponential_(1.0).clamp(0.2, 4.0))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
