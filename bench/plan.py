"""What `curiosft plan` predicts for one process on a CPU beside what that process measures, for several model shapes.

Every shape is trained by the real sft stage in a process of its own with one thread, then predicted from its
configuration and the lengths of the same packs. Memory is the peak of the steps above what the process holds after its
imports; time is processor seconds of the steps after the first one. Prints one JSON line per case.

    python bench/plan.py --model PATH [--cases s,q,wide] [--precision bfloat16]

PATH is the model of case `s` and has the tokenizer of all others, which are random.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "wide": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4, "vocab_size": 49_152},
    "deep": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 16, "vocab_size": 65_536},
    "middle": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "vocab_size": 49_152},
}
TIED = {"deep"}
CASES: dict[str, tuple[str, list[str]]] = {
    "s": ("s", ["sft.objective=curio"]),
    "q": ("q", ["sft.objective=curio", "sft.head_chunk=256"]),
    "wide": ("wide", ["sft.objective=curio"]),
    "deep": ("deep", ["sft.objective=sft", "sft.gradient_checkpointing=true"]),
    "middle": ("middle", ["sft.objective=kl", "sft.head_chunk=512", "sft.max_tokens_per_batch=600"]),
    "wide-sft": ("wide", ["sft.objective=gem", "sft.max_tokens_per_batch=1024", "sft.head_chunk=128"]),
}
"""The model, and the settings that differ."""
SETTINGS = ["sft.batch_size=2", "sft.max_tokens_per_batch=2048", "sft.head_chunk=1024", "sft.warmup_steps=0"]
MIB = 2**20
held: list[Any] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(trained(options)))
        return
    from curiosft_cli.run.cpu_allocator import cpu_allocator_environment

    environment = cpu_allocator_environment() | os.environ | {"OMP_NUM_THREADS": "1"}
    for case in options.cases.split(","):
        common = [f"--{key}={getattr(options, key)}" for key in ("model", "precision", "steps")]
        command = [sys.executable, __file__, *common, f"--worker={case}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{case} failed:\n{done.stderr[-3000:]}")
        measured = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps({"case": case, "precision": options.precision, **measured}), flush=True)


def settings_of(case: str) -> list[str]:
    """Of a case, each key once."""
    chosen = dict(setting.split("=", 1) for setting in [*SETTINGS, *CASES[case][1]])
    return [f"{key}={value}" for key, value in chosen.items()]


def trained(options: argparse.Namespace) -> dict[str, Any]:
    """Run the stage in this process."""
    import torch
    from sft_step import make_q, make_rows

    from curiosft_cli.run.config import load
    from curiosft_cli.run.rundir import RunDir, begin
    from curiosft_cli.stages import sft
    from curiosft_cli.train.loop import Loop

    torch.set_num_threads(1)
    case, packs, marks, seconds = options.worker, [[]], [], []
    report, accumulate = Loop.report, Loop.accumulate

    def marked(self: Loop) -> dict[str, float]:
        marks.append((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.process_time()))
        packs.append([])
        return report(self)

    def recorded(self: Loop, pack: Any, *arguments: Any, **more: Any) -> Any:
        responses = torch.bincount(pack.sequence, minlength=len(pack.lengths)).tolist()
        packs[-1].append([(length - own, own) for length, own in zip(pack.lengths, responses, strict=True)])
        return accumulate(self, pack, *arguments, **more)

    Loop.report, Loop.accumulate = marked, recorded
    with tempfile.TemporaryDirectory() as folder:
        kind = CASES[case][0]
        model = options.model if kind == "s" else str(make_q(Path(folder) / "q", options.model))
        if kind in SHAPES:
            make_random(Path(model), kind)
        rows = argparse.Namespace(rows=2, steps=options.steps, data=None)
        data = make_rows(Path(folder) / "rows.jsonl", rows)
        more = [f"run.root={folder}", "run.name=bench", f"model.path={model}", f"data.train={data}"]
        more += [f"sft.max_steps={options.steps}", f"sft.precision={options.precision}", "model.prefill=''"]
        config = load("sft", [*settings_of(case), *more, "model.system_prompt=''", "sft.guards.action=off"]).config
        stage, _ = begin(RunDir(Path(folder) / "bench"), "sft", config)
        before, speeds = imported(model), [speed(config)]
        sft.run(config, stage)
        predicted = prediction(config, model, packs, [*speeds, speed(config)])
    peak = max(mark[0] for mark in marks)
    seconds = (marks[-1][1] - marks[0][1]) / (len(marks) - 1)
    tokens = [sum(sum(row) for pack in step for row in pack) for step in packs[1:-1]]
    return {
        "measured_mib": round((peak - before) / MIB),
        "imports_mib": round(before / MIB),
        "measured_s": round(seconds, 2),
        "tokens": round(sum(tokens) / len(tokens)),
        **predicted,
    }


def imported(model: str) -> int:
    """Bytes that this process holds after the imports of a training, with a tokenizer."""
    import accelerate  # noqa: F401
    import transformers.models.llama.modeling_llama
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401
    from transformers import AutoTokenizer

    held.append(AutoTokenizer.from_pretrained(model))
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def make_random(folder: Path, kind: str) -> None:
    """Replace the model in `folder` by a random one of this shape."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    heads = SHAPES[kind]["hidden_size"] // 64
    config = Qwen2Config(
        **SHAPES[kind],
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        tie_word_embeddings=kind in TIED,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


def speed(config: Any) -> tuple[float, float]:
    """Products and moved bytes in a second, as `curiosft plan --gpu cpu` measures them."""
    import torch

    from curiosft_cli.tools.plan.machines import measured_cpu

    machine = measured_cpu(getattr(torch, config.sft.precision))
    return machine.products, machine.moved


def prediction(config: Any, model: str, packs: list[Any], speeds: list[tuple[float, float]]) -> dict[str, Any]:
    """Of the largest pack, in memory and, times the packs of a step, in processor seconds.

    The speed of the processor before and after the training counts, since other work changes it.
    """
    import torch

    from curiosft_cli.objectives import SFT_OBJECTIVES
    from curiosft_cli.tools.plan.machines import CPU_REACHED
    from curiosft_cli.train.fake_step import UPDATE, CpuShapes, step_cost
    from curiosft_cli.train.load import load_config

    sft = config.sft
    dtype = getattr(torch, sft.precision)
    largest = max((pack for step in packs for pack in step), key=lambda pack: sum(map(sum, pack)))
    cost = step_cost(
        load_config(model, config.model),
        sft,
        SFT_OBJECTIVES[sft.objective].bind(**sft.params),
        largest,
        dtype=dtype,
        kernels=CpuShapes(),
        accumulates=max(map(len, packs)) > 1,
    )
    products_in_s, moved_in_s = (statistics.mean(values) for values in zip(*speeds, strict=True))
    tokens = statistics.mean(sum(sum(row) for pack in step for row in pack) for step in packs[1:] if step)
    share = tokens / sum(map(sum, largest))
    update = sum(cost.moved[phase] for phase in cost.moved if phase == UPDATE)
    passes = (sum(cost.moved.values()) - update) * share + update
    products = sum(cost.flops.values()) * share
    return {
        "predicted_mib": round(sum(cost.peak().values()) / MIB),
        "predicted_s": round((products / products_in_s + passes / moved_in_s) / CPU_REACHED, 2),
        "products_s": round(products / products_in_s, 2),
        "terms_mib": {name: round(size / MIB) for name, size in cost.peak().items() if size > MIB},
        "packs": packs,
    }


if __name__ == "__main__":
    main()
