"""Which engine samples: the only place that chooses between the implementations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from curiosft_cli.engine.base import LogprobKind, RolloutEngine
    from curiosft_cli.run.device import Dtype

EngineKind = Literal["auto", "vllm", "transformers"]


def open_engine(
    kind: EngineKind,
    model_dir: str | Path,
    *,
    max_model_len: int,
    dtype: Dtype = "auto",
    seed: int = 0,
    logprobs: LogprobKind = "raw",
    cpu_kv_cache_gib: float = 1.0,
    gpu_memory_utilization: float = 0.9,
    hf_overrides: Mapping[str, Any] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    vllm: Mapping[str, Any] | None = None,
) -> RolloutEngine:
    """Open vLLM, or transformers where vLLM is not installed ("auto") or not wanted.

    Args:
        kind: see above.
        model_dir: a model folder or hub id.
        max_model_len: tokens of prompt and completion together.
        dtype: "auto" is bfloat16 where the hardware has it.
        seed: of requests that bring none.
        logprobs: which log-probabilities come with the completions.
        cpu_kv_cache_gib: key-value cache on a CPU, GiB.
        gpu_memory_utilization: share of GPU memory for the engine.
        hf_overrides: keys that replace those of the model's configuration.
        revision: of a hub id.
        trust_remote_code: run Python code that comes with the model.
        vllm: further settings of vLLM's engine; transformers has none of them.

    Raises:
        CurioError: exit code 3 when vLLM is asked for and not installed.
    """
    from curiosft_cli.engine.vllm_engines.embedded import VllmEngine, vllm_installed

    model: dict[str, Any] = {
        "max_model_len": max_model_len,
        "dtype": dtype,
        "seed": seed,
        "logprobs": logprobs,
        "hf_overrides": hf_overrides,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
    }
    if kind == "vllm" or (kind == "auto" and vllm_installed()):
        memory = {"cpu_kv_cache_gib": cpu_kv_cache_gib, "gpu_memory_utilization": gpu_memory_utilization}
        return VllmEngine(model_dir, **model, **memory, more=vllm)
    from curiosft_cli.engine.transformers_engine import TransformersEngine

    return TransformersEngine(model_dir, **model)
