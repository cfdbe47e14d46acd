"""What a process of the doctor does with torch: `probe [STAGE...] [bfloat16]`, or `probe reduce` for one of two ranks.

Each line that it prints is one finding as JSON, at once. A crash ends this process, not the doctor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from curiosft_cli.run.device import resolve_dtype
from curiosft_cli.run.launch import GPU_DEVICES
from curiosft_cli.run.text import show
from curiosft_cli.tools.doctor.finding import Finding, Level

NAMES = ("torch", "bfloat16", "training step", "generation")
VOCABULARY = 256


def build(level: Level) -> Finding:
    """The build of torch against the driver.

    Args:
        level: how bad it is that a GPU is there and torch cannot use it.
    """
    import torch

    cuda = torch.version.cuda or getattr(torch.version, "hip", None)
    says = f"{torch.__version__}, " + (f"built for {cuda}" if cuda else "a build for the CPU")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("torch", "ok", f"{says}, driver {driver()}: {len(devices)} x {devices[0]}")
    if not any(device.exists() for device in GPU_DEVICES):
        return Finding("torch", "ok", f"{says}; no GPU is there")
    if cuda:
        fix = "Update the driver, or install a build of torch for its CUDA version (nvidia-smi shows it)."
        return Finding("torch", level, f"{says}; the GPU cannot be used: driver {driver()}", fix)
    return Finding("torch", level, f"{says}, and a GPU is there", "make install, or pip install 'curiosft[gpu]'.")


def driver(limit_s: float = 10.0) -> str:
    """The version of the NVIDIA driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return next(iter(done.stdout.split()), "unknown")


def bfloat16(*, wanted: bool) -> Finding:
    """What `precision = "auto"` is here, and whether a configuration wants more."""
    if resolve_dtype("auto") == "bfloat16":
        return Finding("bfloat16", "ok", 'multiplied natively: precision "auto" is bfloat16')
    says = 'not native here: precision "auto" is float32'
    return (
        Finding("bfloat16", "warning", says, 'precision "bfloat16" is slow: set "auto".')
        if wanted
        else Finding("bfloat16", "ok", says)
    )


def tiny_model() -> Any:
    """A random Qwen2 of two layers, where and as training would load a model."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return Qwen2ForCausalLM(sizes).to(device=device, dtype=getattr(torch, resolve_dtype("auto")))


def training_step(learning_rate: float = 1e-2, length: int = 64) -> Finding:
    """Forward, backward and AdamW on a tiny model: the loss must fall."""
    import torch

    model, started = tiny_model(), time.monotonic()
    ids = torch.randint(VOCABULARY, (2, length), device=model.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    before = model(input_ids=ids, labels=ids).loss
    before.backward()
    optimizer.step()
    with torch.no_grad():
        after = model(input_ids=ids, labels=ids).loss
    says = f"loss {before.item():.3f} -> {after.item():.3f} on {model.device}, {time.monotonic() - started:.1f} s"
    if after < before:
        return Finding("training step", "ok", says)
    return Finding("training step", "error", says, "The loss must fall: install torch again, test the hardware.")


def generation(count: int = 8) -> Finding:
    """A few tokens of a tiny model by the transformers engine's own call."""
    import torch

    model, started = tiny_model(), time.monotonic()
    ids = torch.arange(4, device=model.device)[None]
    made = model.generate(ids, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
    return Finding("generation", "ok", f"{made.shape[1] - ids.shape[1]} tokens, {time.monotonic() - started:.1f} s")


def reduce(limit_s: float = 60.0) -> str:
    """The sum of both ranks' numbers, 1 and 2, and the backend."""
    import torch
    from torch import distributed

    rank, backend = int(os.environ["RANK"]), "nccl" if torch.cuda.device_count() > 1 else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(seconds=limit_s))
    number = torch.tensor(1.0 + rank, device=f"cuda:{rank}" if backend == "nccl" else "cpu")
    distributed.all_reduce(number)
    distributed.destroy_process_group()
    return f"{number.item()} {backend}"


def main(arguments: list[str]) -> None:
    """Print the findings; a check that fails is one too."""
    if arguments == ["reduce"]:
        show(reduce())
        return
    level: Level = "error" if {"sft", "rl", "eval"} & set(arguments) else "warning"
    checks: tuple[Callable[[], Finding], ...] = (
        lambda: build(level),
        lambda: bfloat16(wanted="bfloat16" in arguments),
        training_step,
        generation,
    )
    for check in checks:
        with redirect_stdout(sys.stderr):  # what a library says is no finding
            found = check()
        show(json.dumps(asdict(found)), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
