"""`[sft]` and `[sft.teacher]`: supervised fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from curiosft_cli.objectives.temperature import TemperatureSettings
from curiosft_cli.run.sections.base import RESUME_FREE, Precision, Section
from curiosft_cli.run.sections.training import GuardSettings, Training


class SftGuards(GuardSettings):
    loss_spike: float | None = Field(3.0, gt=1)
    """A loss above this multiple of the usual loss is a spike (our choice)."""


class TeacherSettings(TemperatureSettings, Section):
    kind: Literal["ema", "self"] = "ema"
    """`ema`: a copy of the student that follows it slowly (Algorithm 1); `self`: the student itself (ablation)."""
    student_weight: float = Field(0.99, gt=0, le=1)
    """Weight of the student in each synchronisation (mu of Algorithm 1, line 17)."""
    sync_every: int = Field(5, ge=1)
    """Optimizer steps between synchronisations (n of Algorithm 1)."""
    dtype: Precision = "auto"
    """Precision of the copy. `auto`: bfloat16 if the products are in bfloat16 and `student_weight` is 0.1 or more, else
    float32."""
    offload: bool = False
    """Keep the copy in main memory while it is not in use (our choice)."""


class Sft(Training):
    objective: str = "curio"
    """Name of a supervised objective (docs/objectives.md), or `FILE.py:NAME`, one of your own: the file is run
    (docs/adding-an-objective.md)."""
    objective_sha256: str | None = None
    """SHA-256 that the file of `objective` must have. None: that of the file as it is; it is recorded, and a stage with
    results refuses another one."""
    teacher: TeacherSettings = TeacherSettings()
    """The teacher of `curio` and `curio_distribution`."""
    init: str = "base"
    """Checkpoint to start from: `base`, a folder, a hub id, or another run's `NAME:sft` or `NAME:sft@best`."""
    reduction: Literal["token_mean", "seq_mean_token_mean", "micro_token_mean"] = "token_mean"
    """How the token losses become one number (D7 of docs/deviations.md)."""
    micro_batch_rows: int = Field(2, ge=1)
    """Rows of one micro-batch in `micro_token_mean` (the authors' code); it does not change the packs."""
    epochs: int = Field(3, ge=1)
    """Passes over the data (Table 5)."""
    max_steps: int | None = Field(None, ge=1)
    """Largest number of optimizer steps. None: as many as `epochs` gives (our choice)."""
    batch_size: int = Field(256, ge=1)
    """Rows per optimizer step over all ranks (Table 5)."""
    max_response_length: int = Field(8192, ge=1)
    """Longest response in tokens, with its end token; longer ones are cut and counted (Table 5)."""
    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate (Table 5)."""
    warmup_steps: int = Field(60, ge=0)
    """Steps of linear warm-up (Table 5)."""
    warmup_start: float | None = Field(None, ge=0, le=1)
    """Share of the peak in step 0; the peak is then reached in step `warmup_steps` (the authors' code: 1e-4, D18).
    None: from peak / `warmup_steps`, one step earlier (our choice)."""
    cosine_length: float = Field(1.0, ge=1)
    """Length of the cosine in multiples of the training, warm-up included (the authors' code: 4, D17)."""
    min_lr_ratio: float = Field(1e-4, ge=0, le=1)
    """Learning rate at the end of the cosine, as a share of the peak (in the authors' script, whose cosine is cut off
    long before)."""
    guards: Annotated[SftGuards, RESUME_FREE] = SftGuards()
    """Guard rails."""
