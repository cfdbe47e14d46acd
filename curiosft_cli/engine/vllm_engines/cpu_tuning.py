"""All that vLLM needs or does faster on a CPU. `VllmEngine` and `serve` each choose it at one place."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from curiosft_cli.run.device import GIB

CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the key-value cache, the fewest that the CPU's attention takes. Completions of one prompt share
whole blocks: with vLLM's 128, up to 127 tokens of the prompt are computed anew for each of them."""


def cpu_engine_options(batched_tokens: int, kv_cache_gib: float) -> dict[str, Any]:
    """Settings of an embedded engine.

    Compiling takes a minute. A seeded request whose prefill is split over two passes crashes on a CPU.
    """
    from curiosft_cli.engine.vllm_engines.cpu_nucleus import CpuNucleus

    return {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "logits_processors": [CpuNucleus],
        "max_num_batched_tokens": batched_tokens,
        "block_size": CPU_BLOCK_TOKENS,
        "kv_cache_memory_bytes": int(kv_cache_gib * GIB),
    }


def cpu_server_arguments(kv_cache_gib: float) -> list[str]:
    """Settings of a server, which has vLLM's own nucleus."""
    cache = ["--kv-cache-memory-bytes", str(int(kv_cache_gib * GIB)), "--block-size", str(CPU_BLOCK_TOKENS)]
    return ["--enforce-eager", *cache]


def cpu_nucleus_request(top_p: float) -> dict[str, Any]:
    """The part of a request that `CpuNucleus` reads."""
    from curiosft_cli.engine.vllm_engines.cpu_nucleus import TOP_P

    return {"extra_args": {TOP_P: top_p}} if top_p < 1.0 else {}


@contextmanager
def cpu_step() -> Generator[None]:
    """Around a step of the engine: keep torch's global generator as it is, and compile nothing.

    vLLM's sampler draws from that generator, seeds or not. It also compiles itself, which needs a C++ compiler and some
    seconds, and saves a few milliseconds a step.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
        yield
