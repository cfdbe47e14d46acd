"""What an engine opens: the checkpoint, and how it is held and sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from curiosft_cli.engine.base import LogprobKind
    from curiosft_cli.run.device import Dtype


@dataclass(frozen=True)
class EngineSpec:
    """Everything that an engine must know of its model. The same for every kind of engine.

    Attributes:
        model: folder in Hugging Face format, or hub id. Engines do not read the tokenizer, a server does.
        max_model_len: tokens of prompt and completion together.
        dtype: "auto" is bfloat16 where the hardware has it.
        seed: of requests without a seed of their own.
        logprobs: which log-probabilities come with the completions.
        revision: of a hub id.
        trust_remote_code: run Python code that comes with the model.
        hf_overrides: keys that replace those of the model's configuration.
        cpu_kv_cache_gib: key-value cache of vLLM on a CPU, GiB (vLLM's own default is most of the machine).
        gpu_memory_utilization: share of a GPU's memory that vLLM may take for weights, activations and cache.
        vllm: further settings of vLLM by their names there, such as `tensor_parallel_size`.
    """

    model: str | Path
    max_model_len: int
    dtype: Dtype = "auto"
    seed: int = 0
    logprobs: LogprobKind = "raw"
    revision: str | None = None
    trust_remote_code: bool = False
    hf_overrides: Mapping[str, Any] = field(default_factory=dict)
    cpu_kv_cache_gib: float = 1.0
    gpu_memory_utilization: float = 0.9
    vllm: Mapping[str, Any] = field(default_factory=dict)
