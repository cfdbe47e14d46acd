"""`[rl]`: reinforcement learning with a verifiable reward."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from curiosft_cli.run.sections.base import Precision, Section


class Rl(Section):
    objective: str = "grpo"
    """grpo, curio_official, luffy, rl_plus, prefix_rft or hpt."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The objective's own parameters, e.g. `clip_high`."""
    init: str = "sft"
    """Checkpoint to start from: `sft` (this run's), `base`, a folder, a hub id, or `NAME:sft`."""
    reduction: Literal["constant", "token_mean", "seq_mean_token_mean"] = "constant"
    """How token losses become one number (docs/equations.md)."""
    advantage_std: bool = True
    """Divide the group advantage by its standard deviation (the authors' code)."""
    steps: int = Field(500, ge=1)
    """Training steps (Table 6): one sampling and its updates."""
    prompts_per_step: int = Field(128, ge=1)
    """Prompts sampled per step over all ranks (Table 6)."""
    num_generations: int = Field(8, ge=1)
    """Rollouts per prompt (Table 6)."""
    mini_batch_prompts: int = Field(64, ge=1)
    """Prompts per optimizer update (Table 6)."""
    max_completion_length: int = Field(8192, ge=1)
    """Longest rollout in tokens (Table 6)."""
    temperature: float = Field(1.0, gt=0, le=2)
    """Sampling temperature (Table 6); vLLM takes no more than 2."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus of the sampling (Table 6)."""
    learning_rate: float = Field(1e-6, gt=0)
    """Learning rate, constant after the warm-up (Table 6)."""
    warmup_steps: int = Field(0, ge=0)
    """Updates of linear warm-up (our choice)."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW weight decay."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """AdamW betas."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """AdamW epsilon."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradient norm is clipped to this."""
    precision: Precision = "auto"
    """As `sft.precision`."""
    head_chunk: int = Field(1024, ge=1)
    """As `sft.head_chunk`."""
    max_tokens_per_batch: int = Field(16384, ge=1)
    """Tokens of one pack (our choice)."""
    gradient_checkpointing: bool = False
    """As `sft.gradient_checkpointing`."""
    compile: bool = False
    """As `sft.compile`."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """Who samples: vLLM where it is installed, else transformers."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """Key-value cache of the engine on CPU, GiB (our choice; a GPU engine sizes its own)."""
    gpu_memory_utilization: float = Field(0.6, gt=0, le=1)
    """Share of GPU memory that the embedded engine may take (our choice)."""
    handover_check_every: int = Field(10, ge=1)
    """Steps between checks that the engine took the weights; the first hand-over is always checked."""
    handover_tolerance: float | None = Field(None, gt=0)
    """Mean log-probability gap in nats that stops the run; none is 0.02 in float32, 0.1 in bfloat16."""
    grader_workers: int = Field(2, ge=1)
    """Grader processes per rank (our choice)."""
    save_steps: int = Field(25, ge=1)
    """Steps between checkpoints; the last step always saves (our choice)."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept (our choice)."""
    keep_every: int | None = Field(None, ge=1)
    """As `sft.keep_every`."""
    max_skipped_steps: int = Field(5, ge=1)
    """As `sft.max_skipped_steps`."""
