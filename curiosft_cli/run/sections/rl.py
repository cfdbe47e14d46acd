"""`[rl]`: reinforcement learning with a verifiable reward."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from curiosft_cli.run.sections.base import Names, Precision, Section


class RlGuards(Section):
    action: Literal["off", "warn", "stop"] = "warn"
    """What a breach does: a line in the log, or a checkpoint and exit code 4 (our choice)."""
    patience: int = Field(10, ge=1)
    """Steps in a row before anything is done (our choice)."""
    window: int = Field(50, ge=1)
    """Steps whose median is the usual value (our choice)."""
    reward_min: float | None = Field(1e-9, ge=0)
    """Mean reward below this is stuck at 0 (our choice)."""
    reward_max: float | None = Field(0.999, gt=0)
    """Mean reward above this is stuck at 1: nothing is left to learn (our choice)."""
    clipped_max: float | None = Field(0.9, gt=0)
    """Share of rollouts cut at their longest length above this (our choice)."""
    entropy_min_nats: float | None = Field(0.005, ge=0)
    """Mean entropy of the trained tokens below this is a collapse (our choice)."""
    entropy_max_nats: float | None = Field(6.0, gt=0)
    """Mean entropy of the trained tokens above this is an explosion (our choice)."""
    mismatch_max_nats: float | None = Field(0.2, gt=0)
    """Mean gap between the engine's and the trainer's log-probabilities above this (our choice)."""


class Rl(Section):
    objective: str = "grpo"
    """grpo, curio_official, luffy, rl_plus, prefix_rft or hpt."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The objective's own parameters, e.g. `clip_high`."""
    init: str = "sft"
    """Checkpoint to start from: `sft` (this run's), `sft@best`, `base`, a folder, a hub id, or `NAME:sft`."""
    reduction: Literal["constant", "token_mean", "seq_mean_token_mean"] = "constant"
    """How token losses become one number (docs/equations.md)."""
    advantage_std: bool | None = None
    """Divide the group advantage by its standard deviation; none is what the method's own code does
    (grpo and curio_official do, the others do not)."""
    zero_variance: Literal["keep", "drop", "refill"] = "keep"
    """Prompts whose rows are all worth the same: count them in the divisors as the paper does, leave them out,
    or draw other prompts for them (our choice)."""
    refill_rounds: int = Field(2, ge=1)
    """Rounds of further prompts in a step with `zero_variance = "refill"` (our choice)."""
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
    skip_grad_norm: float | None = Field(None, gt=0)
    """An update whose gradient norm is above this is skipped (HPT's script: 80)."""
    importance_sampling: Literal["auto", "on", "off"] = "auto"
    """Correct advantages token by token for the difference between engine and trainer; `auto` does where products
    are in bfloat16 (our choice)."""
    importance_cap: float = Field(2.0, gt=0)
    """Largest correction (our choice)."""
    precision: Precision = "auto"
    """As `sft.precision`."""
    head_chunk: int = Field(1024, ge=1)
    """As `sft.head_chunk`."""
    max_tokens_per_batch: int = Field(16384, ge=1)
    """Tokens of one pack (our choice)."""
    share_prompts: bool = True
    """Run the prompt of a group once for all its responses, where the attention can (our choice; the same result)."""
    gradient_checkpointing: bool = False
    """As `sft.gradient_checkpointing`."""
    compile: bool = False
    """As `sft.compile`."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """Who samples: vLLM where it is installed, else transformers."""
    servers: Names = ()
    """Base URLs of vLLM servers that sample instead (docs/rl.md says how to start them); empty is an engine in every
    training process."""
    server_sync: Literal["folder", "nccl"] = "folder"
    """How the servers get the weights: through `server_weights`, or broadcast from GPU to GPU by vLLM's weight transfer
    (our choice; the latter has not been run)."""
    server_weights: str | None = None
    """Folder that hands the weights to the servers, readable by all of them; none is one in the run folder."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """Key-value cache of the engine on CPU, GiB (our choice; a GPU engine sizes its own)."""
    gpu_memory_utilization: float = Field(0.6, gt=0, le=1)
    """Share of GPU memory that the embedded engine may take (our choice)."""
    handover_check_every: int = Field(10, ge=1)
    """Steps between checks that the engine took the weights; the first hand-over is always checked."""
    handover_tolerance: float | None = Field(None, gt=0)
    """Mean log-probability gap in nats that stops the run; none is 0.02 in float32, 0.1 in bfloat16."""
    preflight: Literal["off", "warn", "stop"] = "stop"
    """Before step 1, whether prompt, stop tokens and reward fit together: a failure is said, or ends the run
    with exit code 4; a pass rate of 0 or 1 and cut rollouts are only said (our choice)."""
    preflight_prompts: int = Field(32, ge=1)
    """Prompts that the preflight samples once each (our choice)."""
    pass_rates: str | None = None
    """File of samples or grades of an evaluation of these questions: prompts outside the two bounds are left out."""
    pass_rate_min: float = Field(0.0, ge=0, le=1)
    """Prompts at or below this pass rate are left out: never solved (our choice)."""
    pass_rate_max: float = Field(1.0, ge=0, le=1)
    """Prompts at or above this pass rate are left out: always solved (our choice)."""
    resume_rollouts: Literal["continue", "redo"] = "continue"
    """Rollouts of a step that was killed while sampling: keep the finished ones (equal to 1e-5, since smaller batches
    take other kernels), or draw all again (equal bit for bit)."""
    grader_workers: int = Field(2, ge=1)
    """Grader processes per rank (our choice)."""
    save_steps: int = Field(25, ge=1)
    """Steps between checkpoints; the last step always saves (our choice)."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept (our choice)."""
    keep_every: int | None = Field(None, ge=1)
    """As `sft.keep_every`."""
    eval_steps: int | None = Field(None, ge=1)
    """Steps between looks at `eval_benchmarks`; the last step always looks, none looks there only (our choice)."""
    eval_benchmarks: Names = ()
    """As `sft.eval_benchmarks`, sampled by the engine of the rollouts; the best checkpoint is `rl@best`."""
    eval_samples: int | None = Field(None, ge=1)
    """As `sft.eval_samples`."""
    eval_limit: int | None = Field(None, ge=1)
    """As `sft.eval_limit`."""
    max_skipped_steps: int = Field(5, ge=1)
    """As `sft.max_skipped_steps`."""
    guards: RlGuards = RlGuards()
    """Guard rails."""
