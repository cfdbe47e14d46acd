"""What `curiosft plan` predicts for one process on a CPU beside what that process measures, for several model shapes.

Every shape is trained by the real sft stage in a process of its own with one thread, then predicted from its
configuration and the lengths of the same packs. Memory is the peak of the steps above what the process holds after its
imports; time is processor seconds of the steps after the second one, when the process has all its memory. Prints one
JSON line per case.

    python bench/plan.py --model PATH [--cases s,q,wide] [--precision bfloat16]

PATH is the model of case `s` and has the tokenizer of all others, which are random.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "wide": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4, "vocab_size": 49_152},
    "deep": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 16, "vocab_size": 65_536},
    "middle": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "vocab_size": 49_152},
    "large": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 6, "vocab_size": 151_936},
    "small": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "vocab_size": 49_152},
}
TIED = {"deep", "large"}
CASES: dict[str, tuple[str, list[str]]] = {
    "s": ("s", ["sft.objective=curio"]),
    "q": ("q", ["sft.objective=curio", "sft.head_chunk=256", "sft.batch_size=4"]),
    "wide": ("wide", ["sft.objective=curio"]),
    "deep": ("deep", ["sft.objective=sft", "sft.gradient_checkpointing=true"]),
    "middle": ("middle", ["sft.objective=kl", "sft.head_chunk=512", "sft.max_tokens_per_batch=600"]),
    "wide-sft": ("wide", ["sft.objective=gem", "sft.max_tokens_per_batch=1024", "sft.head_chunk=128"]),
    "large": ("large", ["sft.objective=sft", "sft.head_chunk=512"]),
    "small": ("small", ["sft.objective=curio", "sft.head_chunk=512", "sft.batch_size=4"]),
}
"""The model, and the settings that differ."""
SETTINGS = ["sft.batch_size=2", "sft.max_tokens_per_batch=2048", "sft.head_chunk=1024", "sft.warmup_steps=0"]
MIB = 2**20
held = [0]
kept: list[Any] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        trained(options)
        return
    for case in options.cases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found = measured(case, Path(folder), options)
        names = {"case": case, "precision": options.precision, "processes": options.processes}
        print(json.dumps(names | found), flush=True)


def measured(case: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train in processes of their own; what the first of them found."""
    from sft_step import make_q, make_rows

    from curiosft_cli.run.cpu_allocator import cpu_allocator_environment

    kind = CASES[case][0]
    if kind != "s":
        make_q(folder / "model", options.model)
    if kind in SHAPES:
        make_random(folder / "model", kind)
    rows = dict(setting.split("=") for setting in settings_of(case))["sft.batch_size"]
    make_rows(folder / "rows.jsonl", argparse.Namespace(rows=int(rows), steps=options.steps, data=None))
    environment = cpu_allocator_environment(sharded=options.processes > 1) | os.environ
    environment |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    common = [f"--{key}={getattr(options, key)}" for key in ("model", "precision", "steps", "processes")]
    launcher = [sys.executable]
    if options.processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={options.processes}"]
    command = [*launcher, __file__, *common, f"--worker={case}", f"--folder={folder}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr[-3000:]}")
    return json.loads((folder / "found.json").read_text())


def settings_of(case: str) -> list[str]:
    """Of a case, each key once."""
    chosen = dict(setting.split("=", 1) for setting in [*SETTINGS, *CASES[case][1]])
    return [f"{key}={value}" for key, value in chosen.items()]


def trained(options: argparse.Namespace) -> None:
    """Run the stage in this process, and write down what it took and what is predicted for it."""
    import torch

    from curiosft_cli.run.config import load
    from curiosft_cli.tools.pipeline import run_stages
    from curiosft_cli.train.loop import Loop

    torch.set_num_threads(1)
    case, packs, marks, folder = options.worker, [[]], [], options.folder
    report, accumulate = Loop.report, Loop.accumulate

    def marked(self: Loop) -> dict[str, float]:
        marks.append((max(held), time.process_time()))
        packs.append([])
        return report(self)

    def recorded(self: Loop, pack: Any, *arguments: Any, **more: Any) -> Any:
        responses = torch.bincount(pack.sequence, minlength=len(pack.lengths)).tolist()
        packs[-1].append([(length - own, own) for length, own in zip(pack.lengths, responses, strict=True)])
        return accumulate(self, pack, *arguments, **more)

    Loop.report, Loop.accumulate = marked, recorded
    model = options.model if CASES[case][0] == "s" else str(folder / "model")
    more = [f"run.root={folder}", "run.name=bench", f"model.path={model}", f"data.train={folder / 'rows.jsonl'}"]
    more += [f"sft.max_steps={options.steps}", f"sft.precision={options.precision}", "model.prefill=''"]
    more += ["model.system_prompt=''", "sft.guards.action=off", "launch.processes=0", "launch.threads=1"]
    resolved = load("sft", [*settings_of(case), *more])
    before = imported(model)
    threading.Thread(target=watch, daemon=True).start()
    run_stages(resolved, ("sft",))
    if os.environ.get("RANK", "0") != "0":
        return
    tokens = [sum(sum(row) for pack in step for row in pack) for step in packs[2:-1]]
    found = {
        "measured_mib": round((marks[-1][0] - before) / MIB),
        "imports_mib": round(before / MIB),
        "measured_s": round((marks[-1][1] - marks[1][1]) / (len(marks) - 2), 2),
        "tokens": round(sum(tokens) / len(tokens)),
        **prediction(resolved.config, model, packs, options.processes),
    }
    (folder / "found.json").write_text(json.dumps(found))


def own_memory() -> int:
    """Bytes of this process without the files of its libraries, which the system may drop and read again."""
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def watch(every_s: float = 0.005) -> None:
    """Keep the most memory of this process."""
    while True:
        held[0] = max(held[0], own_memory())
        time.sleep(every_s)


def imported(model: str) -> int:
    """Bytes that this process holds after the imports of a training, with a tokenizer."""
    import accelerate  # noqa: F401
    import transformers.models.llama.modeling_llama
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401
    from transformers import AutoTokenizer

    kept.append(AutoTokenizer.from_pretrained(model))
    return own_memory()


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


def prediction(config: Any, model: str, packs: list[Any], ranks: int) -> dict[str, Any]:
    """Of the largest pack, in memory and, times the packs of a step, in processor seconds."""
    import torch

    from curiosft_cli.tools.plan.estimate import plan_sft
    from curiosft_cli.tools.plan.machines import CPU, Setting, measured_cpu
    from curiosft_cli.train.load import load_config
    from curiosft_cli.train.size import model_size

    machine = replace(measured_cpu(getattr(torch, config.sft.precision)), imports=0)
    largest = max((pack for step in packs for pack in step), key=lambda pack: sum(map(sum, pack)))
    rows = [row for step in packs[2:] for pack in step for row in pack]
    prompt, response = (round(statistics.mean(part)) for part in zip(*rows, strict=True))
    setting = Setting(machine, CPU, ranks, 1, len(rows), prompt, response, tuple(largest))
    shape = load_config(model, config.model)
    plan = plan_sft(config, shape, model_size(shape), setting)
    return {
        "predicted_mib": round(sum(plan.terms.values()) / MIB),
        "predicted_s": round(plan.step_s or 0.0, 2),
        "terms_mib": {name: round(size / MIB) for name, size in plan.terms.items() if size > MIB},
        "phase": plan.phase,
        "packs": packs,
    }


if __name__ == "__main__":
    main()
