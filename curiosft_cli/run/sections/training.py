"""What `[sft]` and `[rl]` share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from curiosft_cli.run.sections.base import RESUME_FREE, Names, Precision, Section

Beta = Annotated[float, Field(ge=0, lt=1)]


class GuardSettings(Section):
    action: Literal["off", "warn", "stop"] = "warn"
    """What happens at a breach: `warn` writes a line, `stop` saves a checkpoint and exits with code 4 (our choice)."""
    patience: int = Field(10, ge=1)
    """Steps in a row outside a limit that count as a breach (our choice)."""
    window: int = Field(50, ge=1)
    """Steps whose median is the usual value (our choice)."""
    entropy_min_nats: float | None = Field(0.005, ge=0)
    """Lowest mean entropy of the trained tokens; below it is a collapse (our choice)."""
    entropy_max_nats: float | None = Field(6.0, gt=0)
    """Highest mean entropy of the trained tokens; above it is an explosion (our choice)."""


class Lora(Section):
    rank: int | None = Field(None, ge=1)
    """Rank of the LoRA adapters; the teacher is then a copy of the adapters alone. None: train all weights."""
    alpha: float = Field(32.0, gt=0)
    """The adapters are scaled by alpha / rank (our choice)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapters, in training only."""
    targets: Names = ()
    """Linear layers with adapters, by the last part of their names. Empty: all but the head (our choice)."""


class Training(Section):
    """Settings of both training stages. Each stage gives the first five its own defaults."""

    objective: str
    init: str
    reduction: str
    learning_rate: float
    warmup_steps: int
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the objective, e.g. `alpha` of curio: the keyword arguments of its function."""
    lora: Lora = Lora()
    """Low-rank adapters."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW weight decay (the authors' configuration)."""
    adam_betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW betas, each at least 0 and below 1."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """AdamW epsilon."""
    max_grad_norm: float = Field(1.0, gt=0)
    """The gradient norm is clipped to this (the authors' configuration)."""
    max_skipped_steps: Annotated[int, RESUME_FREE] = Field(5, ge=1)
    """Skipped updates in a row before the run stops with exit code 4; an update with a non-finite gradient is skipped
    (our choice)."""
    precision: Precision = "auto"
    """Precision of the matrix products; weights are float32. `auto` is bfloat16 where the hardware has it, else float32
    (our choice)."""
    max_tokens_per_batch: int = Field(16384, ge=1)
    """Tokens of one pack, that is of one forward pass (our choice)."""
    head_chunk: int = Field(1024, ge=1)
    """Trained positions in one chunk of the head; it changes memory, not results (our choice)."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass to save memory (our choice)."""
    compile: bool = False
    """Compile the transformer with torch.compile; a CPU needs a C++ compiler for it (our choice)."""
    save_steps: Annotated[int, RESUME_FREE] = Field(100, ge=1)
    """Steps between checkpoints; the last step always saves one (our choice)."""
    keep_last: Annotated[int, RESUME_FREE] = Field(2, ge=1)
    """Newest checkpoints to keep (our choice)."""
    keep_every: Annotated[int | None, RESUME_FREE] = Field(None, ge=1)
    """Keep also the checkpoints at multiples of this many steps. None: only the newest (our choice)."""
    eval_steps: Annotated[int | None, RESUME_FREE] = Field(None, ge=1)
    """Steps between evaluations of `eval_benchmarks`; sft also evaluates `data.validation` (loss, entropy).
    The last step always evaluates. None: only the last step (our choice)."""
    eval_benchmarks: Names = ()
    """Benchmarks for these evaluations, sampled and graded as `[eval]` says; the best checkpoint is kept (`sft@best`,
    `rl@best`)."""
    best_by: Literal["avg", "pass@k", "heldout_loss"] = "avg"
    """What makes a checkpoint of these evaluations the best one: the mean Avg@k of the benchmarks; their mean Pass@k,
    where k is the number of samples; or, in sft, the lowest loss on `data.validation` (our choice)."""
    eval_samples: int | None = Field(None, ge=1)
    """Samples per question of these benchmarks. None: the benchmark's own number."""
    eval_limit: int | None = Field(None, ge=1)
    """Use only the first questions of each of these benchmarks. None: all."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """Engine that samples, in every training process; `auto` is vLLM where it is installed, else transformers."""
    kv_cache_gib: Annotated[float, RESUME_FREE] = Field(1.0, gt=0)
    """Key-value cache of the engine on a CPU, in GiB; on a GPU the engine chooses it (our choice)."""
    gpu_memory_utilization: Annotated[float, RESUME_FREE] = Field(0.3, gt=0, le=1)
    """Share of GPU memory for the engine while it samples; the trainer's state needs the rest (our choice)."""
    guards: Annotated[GuardSettings, RESUME_FREE] = GuardSettings()
    """Guard rails."""
