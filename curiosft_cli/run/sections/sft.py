"""`[sft]` and `[sft.teacher]`: supervised fine-tuning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from curiosft_cli.run.sections.base import Names, Precision, Section


class SftGuards(Section):
    action: Literal["off", "warn", "stop"] = "warn"
    """What a breach does: a line in the log, or a checkpoint and exit code 4 (our choice)."""
    patience: int = Field(10, ge=1)
    """Steps in a row before anything is done (our choice)."""
    window: int = Field(50, ge=1)
    """Steps whose median is the usual loss (our choice)."""
    entropy_min_nats: float | None = Field(0.005, ge=0)
    """Mean entropy of expert tokens below this is a collapse (our choice)."""
    entropy_max_nats: float | None = Field(6.0, gt=0)
    """Mean entropy of expert tokens above this is an explosion (our choice)."""
    loss_spike: float | None = Field(3.0, gt=1)
    """A loss above this multiple of the usual one is a spike (our choice)."""


class Lora(Section):
    rank: int | None = Field(None, ge=1)
    """Rank of LoRA adapters; none trains all weights. The teacher then is a copy of the adapters alone."""
    alpha: float = Field(32.0, gt=0)
    """The adapters are scaled by alpha / rank (our choice)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in front of the adapters, in training only."""
    targets: Names = ()
    """Linear layers by the last part of their name; empty is all but the head (our choice)."""


class Teacher(Section):
    kind: Literal["ema", "self"] = "ema"
    """`ema`: a slowly synchronised copy (Algorithm 1); `self`: the student itself (ablation)."""
    student_weight: float = Field(0.99, gt=0, le=1)
    """Weight of the student in each synchronisation (mu of Algorithm 1, line 17)."""
    sync_every: int = Field(5, ge=1)
    """Optimizer steps between synchronisations (n of Algorithm 1)."""
    tau_mode: Literal["adaptive", "fixed"] = "adaptive"
    """`adaptive`: temperature per token from its entropy (Eq. 8); `fixed`: `tau_fixed` (ablation)."""
    tau_fixed: float = Field(1.3, gt=0)
    """Temperature of the fixed ablation."""
    h_pivot: float = 1.2
    """Entropy in nats at which the increment is half of `delta_max` (Eq. 7)."""
    gamma: float = Field(2.0, gt=0)
    """Steepness of the increment, per nat (Eq. 7)."""
    delta_max: float = Field(0.5, ge=0)
    """Largest entropy increment in nats (Eq. 7)."""
    tau_min: float = Field(1.1, gt=0)
    """Lowest temperature."""
    tau_max: float = Field(1.5, gt=0)
    """Highest temperature."""
    topk: int = Field(512, ge=2)
    """Logits that the entropy of the search is taken over (Appendix D)."""
    low_entropy_guard: float | None = Field(0.03, ge=0)
    """Full-vocabulary entropy in nats at or below which the temperature is `tau_min`
    (the authors' code; none is the paper's text)."""
    search: Literal["newton", "bisect"] = "newton"
    """How Eq. 8 is solved; both reach the same temperature (our choice)."""
    iters: int = Field(20, ge=1)
    """Halvings of the bisection."""
    clamp: Literal["end", "target"] = "end"
    """A target out of reach takes the end of the range, or is searched for at the end's entropy (D3)."""
    search_dtype: Literal["float32", "logits"] = "float32"
    """Precision of the bisection: float32, or that of the logits (D8)."""
    dtype: Precision = "auto"
    """Of the copy; `auto` is bfloat16 where the products are and `student_weight` is 0.1 or more, else float32."""
    offload: bool = False
    """Keep the copy in main memory while it is not asked (our choice)."""


class Sft(Section):
    objective: str = "curio"
    """sft, entropy, entropy_top, kl, gem, dft, psft or curio."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The objective's own parameters (its function's keyword arguments), e.g. `alpha`."""
    teacher: Teacher = Teacher()
    """The teacher of `curio`."""
    lora: Lora = Lora()
    """Low-rank adapters."""
    init: str = "base"
    """Checkpoint to start from: `base`, a folder, a hub id, or another run's `NAME:sft` or `NAME:sft@best`."""
    reduction: Literal["token_mean", "seq_mean_token_mean", "micro_token_mean"] = "token_mean"
    """How token losses become one number (D7 of docs/deviations.md)."""
    micro_batch_rows: int = Field(2, ge=1)
    """Rows of what `micro_token_mean` takes for a micro-batch (the authors' code); packs are made as ever."""
    epochs: int = Field(3, ge=1)
    """Passes over the data (Table 5)."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps at most; none is what `epochs` gives (our choice)."""
    batch_size: int = Field(256, ge=1)
    """Rows per optimizer step over all ranks (Table 5)."""
    max_response_length: int = Field(8192, ge=1)
    """Longest response in tokens, end token included; longer ones are cut and counted (Table 5)."""
    max_tokens_per_batch: int = Field(16384, ge=1)
    """Tokens of one pack, that is of one forward pass (our choice)."""
    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate (Table 5)."""
    warmup_steps: int = Field(60, ge=0)
    """Steps of linear warm-up (Table 5)."""
    min_lr_ratio: float = Field(1e-4, ge=0, le=1)
    """Floor of the cosine, as a share of the peak (the authors' script)."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW weight decay (the authors' configuration)."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """AdamW betas."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """AdamW epsilon."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradient norm is clipped to this (the authors' configuration)."""
    precision: Precision = "auto"
    """Products in bfloat16 with float32 weights where the hardware has bfloat16, else float32 (our choice)."""
    head_chunk: int = Field(1024, ge=1)
    """Supervised positions per step of the chunked head; bounds memory, not results (our choice)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory (our choice)."""
    compile: bool = False
    """Compile the transformer with torch.compile; needs a C++ compiler on CPU (our choice)."""
    save_steps: int = Field(100, ge=1)
    """Optimizer steps between checkpoints; the last step always saves (our choice)."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept (our choice)."""
    keep_every: int | None = Field(None, ge=1)
    """Checkpoints at multiples of this many steps are kept as well; none keeps only the last ones (our choice)."""
    eval_steps: int | None = Field(None, ge=1)
    """Steps between looks at `data.validation` (loss, entropy) and at `eval_benchmarks`; the last step always looks,
    none looks there only (our choice)."""
    eval_benchmarks: Names = ()
    """Benchmarks that are sampled at these steps, as `[eval]` samples and grades them; the best checkpoint is kept
    (`sft@best`)."""
    eval_samples: int | None = Field(None, ge=1)
    """Samples per question of these benchmarks; none is the benchmark's own."""
    eval_limit: int | None = Field(None, ge=1)
    """First questions of each of these benchmarks only; none is all."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """Who samples them: vLLM where it is installed, else transformers, in every training process."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """Key-value cache of the engine on CPU, GiB (our choice; a GPU engine sizes its own)."""
    gpu_memory_utilization: float = Field(0.3, gt=0, le=1)
    """Share of GPU memory that the engine takes while it samples, beside the trainer's state (our choice)."""
    max_skipped_steps: int = Field(5, ge=1)
    """Steps in a row with a non-finite gradient before the run stops with exit code 4 (our choice)."""
    guards: SftGuards = SftGuards()
    """Guard rails."""
