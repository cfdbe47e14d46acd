"""`[rl]`: reinforcement learning with a verifiable reward."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from curiosft_cli.run.address import Address
from curiosft_cli.run.sections.base import RESUME_FREE, EachOnce, OneOrMore
from curiosft_cli.run.sections.training import GuardSettings, Training


class RlGuards(GuardSettings):
    reward_min: float | None = Field(1e-9, ge=0)
    """Lowest mean reward; below it the reward is stuck at 0 (our choice)."""
    reward_min_action: Literal["off", "warn", "stop"] = "stop"
    """As `action`, for `reward_min` alone: a policy without any reward learns nothing. A method with expert rows learns
    from them, so there `action` counts (our choice)."""
    reward_max: float | None = Field(0.999, gt=0)
    """Highest mean reward; above it the reward is stuck at 1, and nothing is left to learn (our choice)."""
    clipped_max: float | None = Field(0.9, gt=0)
    """Largest share of rollouts that are cut at their longest length (our choice)."""
    mismatch_max_nats: float | None = Field(0.2, gt=0)
    """Largest mean difference between the log-probabilities of engine and trainer (our choice)."""


class Rl(Training):
    objective: str = "grpo"
    """grpo, curio_official, luffy, rl_plus, prefix_rft or hpt."""
    init: str = "sft"
    """Checkpoint to start from: `sft` (this run's), `sft@best`, `base`, a folder, a hub id, or `NAME:sft`."""
    reduction: Literal["constant", "token_mean", "seq_mean_token_mean"] = "constant"
    """How the token losses become one number (docs/equations.md)."""
    advantage_std: bool | None = None
    """Divide the group advantage by its standard deviation. None: as the method's own code does (grpo and
    curio_official divide, the others do not)."""
    zero_variance: Literal["keep", "drop", "refill"] = "keep"
    """Prompts whose rollouts all have the same reward: `keep` counts them in the divisors as the paper does, `drop`
    leaves them out, `refill` samples other prompts in their place (our choice)."""
    refill_rounds: int = Field(2, ge=1)
    """Rounds of further prompts in one step with `zero_variance = "refill"` (our choice)."""
    steps: int = Field(500, ge=1)
    """Training steps; one step samples once and then makes its updates (Table 6)."""
    epochs: int | None = Field(None, ge=1)
    """Train for so many passes over the questions, in place of `steps` (the authors' script: 12, D13). None: `steps`.
    A fidelity's epochs give way to steps that a file or the command line names."""
    prompts_per_step: int = Field(128, ge=1)
    """Prompts sampled per step over all ranks (Table 6)."""
    num_generations: int = Field(8, ge=1)
    """Rollouts per prompt (Table 6)."""
    mini_batch_prompts: int = Field(64, ge=1)
    """Prompts per optimizer update (Table 6)."""
    max_completion_length: int = Field(8192, ge=1)
    """Longest rollout in tokens (Table 6)."""
    temperature: float = Field(1.0, gt=0, le=2)
    """Sampling temperature (Table 6); 2 is vLLM's limit."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus of the sampling (Table 6)."""
    grader: Literal["curiosft", "official"] = "curiosft"
    """Reward of a rollout: `curiosft`, a right answer in the required format; `official`, the authors' reward (D21)."""
    learning_rate: float = Field(1e-6, gt=0)
    """Learning rate, constant after the warm-up (Table 6)."""
    warmup_steps: int = Field(0, ge=0)
    """Updates of linear warm-up (our choice)."""
    skip_grad_norm: float | None = Field(None, gt=0)
    """An update with a larger gradient norm is skipped (HPT's script: 80). None: skip only non-finite gradients."""
    importance_sampling: Literal["auto", "on", "off"] = "auto"
    """Correct advantages token by token for the difference between engine and trainer. `auto`: on if the products are
    in bfloat16 (our choice)."""
    importance_cap: float = Field(2.0, gt=0)
    """Largest correction factor (our choice)."""
    share_prompts: bool = True
    """Run the prompt of a group once for all its responses, if the attention can; results are the same (our choice)."""
    servers: Annotated[tuple[Address, ...], OneOrMore, EachOnce, RESUME_FREE] = ()
    """Base URLs of vLLM servers that sample (docs/rl.md says how to start them). Empty: an engine in every training
    process samples."""
    server_sync: Annotated[Literal["folder", "nccl"], RESUME_FREE] = "folder"
    """How the servers get the weights: `folder` through `server_weights`, `nccl` from GPU to GPU by vLLM's weight
    transfer (our choice; `nccl` has never been run)."""
    server_weights: Annotated[str | None, RESUME_FREE] = None
    """Folder through which the servers get the weights; all of them must be able to read it. None: a folder in the run
    folder."""
    handover_check_every: int = Field(10, ge=1)
    """Steps between checks that the engine has the new weights; the first hand-over is always checked."""
    handover_tolerance: float | None = Field(None, gt=0)
    """Mean difference in log-probability, in nats, that stops the run. None: 0.02 in float32, 0.1 in bfloat16."""
    preflight: Annotated[Literal["off", "warn", "stop"], RESUME_FREE] = "stop"
    """Check before step 1 that prompt, stop tokens and reward fit together. A failed check writes a line (`warn`), or
    also ends the run with exit code 4 (`stop`). A pass rate of 0 or 1 and cut rollouts only write a line (our
    choice)."""
    preflight_prompts: Annotated[int, RESUME_FREE] = Field(32, ge=1)
    """Prompts that the preflight samples once each (our choice)."""
    pass_rates: str | None = None
    """File with samples or grades of an evaluation of these questions, for the two keys below."""
    pass_rate_min: float = Field(0.0, ge=0, le=1)
    """Prompts with this pass rate or a lower one are left out; 0 leaves out those never solved (our choice)."""
    pass_rate_max: float = Field(1.0, ge=0, le=1)
    """Prompts with this pass rate or a higher one are left out; 1 leaves out those always solved (our choice)."""
    resume_rollouts: Annotated[Literal["continue", "redo"], RESUME_FREE] = "continue"
    """Rollouts of a step that was killed while it sampled: `continue` keeps the finished ones (equal to 1e-5, because
    smaller batches use other kernels), `redo` samples all again (equal bit for bit)."""
    grader_workers: Annotated[int, RESUME_FREE] = Field(2, ge=1)
    """Grader processes per rank (our choice)."""
    save_steps: Annotated[int, RESUME_FREE] = Field(25, ge=1)
    """Steps between checkpoints; the last step always saves one (our choice)."""
    gpu_memory_utilization: Annotated[float, RESUME_FREE] = Field(0.6, gt=0, le=1)
    """Share of GPU memory for the engine; the trainer's state needs the rest (our choice)."""
    guards: Annotated[RlGuards, RESUME_FREE] = RlGuards()
    """Guard rails."""

    @property
    def reward_grader(self) -> Literal["curiosft", "official-reward"]:
        """The grader whose strict score is the reward."""
        return "official-reward" if self.grader == "official" else "curiosft"
