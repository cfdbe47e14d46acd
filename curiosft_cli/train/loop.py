"""What the training loops of sft and rl share: the student, its optimizer, one update, and its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from curiosft_cli.objectives.reduction import REDUCTIONS, Totals
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.train.batches import Pack, make_pack, rank_packs
from curiosft_cli.train.checkpoint import load_state, save_checkpoint
from curiosft_cli.train.load import compute_dtype, load_model, load_tokenizer
from curiosft_cli.train.optim import OptimizerSettings, clip_and_step, make_optimizer
from curiosft_cli.train.start import check_ranks_agree
from curiosft_cli.train.stats import StepStats
from curiosft_cli.train.student import BESIDE_FORWARD, Student

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.run.sections import Config
    from curiosft_cli.train.encode import Row
    from curiosft_cli.train.head import HeadRows
    from curiosft_cli.train.teacher import Teacher


class LoopSettings(OptimizerSettings, Protocol):
    """What the `sft` and `rl` sections have in common."""

    @property
    def reduction(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def head_chunk(self) -> int: ...
    @property
    def gradient_checkpointing(self) -> bool: ...
    @property
    def keep_last(self) -> int: ...
    @property
    def max_skipped_steps(self) -> int: ...


@dataclass
class Loop:
    """The state of a training stage on one rank.

    Attributes:
        model: the unwrapped student's transformer.
        student: the module that accelerate wrapped.
        stats: per-token values of the current step.
        skipped: steps in a row whose gradient was not finite.
        first_handover: no engine has taken this process's weights yet.
    """

    settings: LoopSettings
    stage: StageDir
    accelerator: Accelerator
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    student: nn.Module
    optimizer: Optimizer
    source: Path | None
    stats: StepStats = field(default_factory=StepStats)
    skipped: int = 0
    first_handover: bool = True

    @classmethod
    def open(cls, config: Config, settings: LoopSettings, stage: StageDir, init: str, accelerator: Accelerator) -> Loop:
        """Load the newest checkpoint of this stage, or `init` when there is none."""
        import torch
        from torch.distributed.fsdp import register_fsdp_forward_method

        steps = stage.checkpoints()
        source = stage.checkpoint(steps[-1]) if steps else None
        path = str(source or init)
        tokenizer = load_tokenizer(path, config.model)
        model = load_model(path, config.model, dtype=torch.float32, device=accelerator.device).train()
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        check_ranks_agree(accelerator, model)
        dtype = compute_dtype(settings.precision, accelerator.device)
        student = Student(model, chunk=settings.head_chunk, compute_dtype=dtype)
        student, optimizer = accelerator.prepare(student, make_optimizer(model, settings))
        for method in BESIDE_FORWARD:
            register_fsdp_forward_method(accelerator.unwrap_model(student), method)
        return cls(settings, stage, accelerator, tokenizer, model, student, optimizer.optimizer, source)

    def resume(self, teacher: Teacher | None = None) -> int:
        """Take up optimizer, teacher and random state; return the steps that are done."""
        if self.source is None:
            return 0
        counters = load_state(
            self.source,
            accelerator=self.accelerator,
            optimizer=self.optimizer,
            teacher=teacher.weights if teacher else None,
        )
        self.skipped = counters["skipped"]
        return counters["step"]

    def packs(self, rows: Sequence[Row], max_tokens: int) -> list[Pack]:
        """This rank's packs of the rows of one update."""
        ranks = self.accelerator.num_processes
        return rank_packs(
            rows, max_tokens, rank=self.accelerator.process_index, ranks=ranks, device=self.accelerator.device
        )

    def single_pack(self, row: Row) -> Pack:
        """One row by itself."""
        return make_pack([row], [0], self.accelerator.device)

    def totals(self, rows: Sequence[Row], packs: Sequence[Pack], max_length: int) -> Totals:
        """The divisors of one update, known before its first backward pass."""
        return Totals(
            tokens=sum(len(row.response_ids) for row in rows),
            sequences=sum(bool(row.response_ids) for row in rows),
            # A pack stays empty only where there are more packs than rows.
            micro_batches=min(len(packs) * self.accelerator.num_processes, len(rows)),
            max_length=max_length,
        )

    def weights_of(self, pack: Pack, totals: Totals) -> Tensor:
        """The reduction as one weight per token [N], so that summing over packs and ranks gives the step's loss."""
        weights = REDUCTIONS[self.settings.reduction](pack.sequence, totals)
        # Data parallel averages gradients over the ranks; the sums here want them added.
        return weights * self.accelerator.num_processes if pack.counted else weights * 0.0

    def accumulate(
        self,
        pack: Pack,
        objective: BoundObjective,
        extra: Mapping[str, Tensor],
        totals: Totals,
        *,
        last: bool,
        temperature: float = 1.0,
    ) -> HeadRows:
        """Add one pack's gradients and statistics; the ranks exchange gradients with the `last` one."""
        with nullcontext() if last else self.accelerator.no_sync(self.student):
            weights = tuple(self.weights_of(pack, totals) for _ in objective.terms)
            loss, rows = self.student(pack, objective, extra, weights, True, temperature)
            self.accelerator.backward(loss)
        if pack.counted:
            self._observe(rows)
        return rows

    def update(self, learning_rate: float) -> dict[str, float]:
        """Clip and step; return what there is to log.

        Raises:
            CurioError: exit code 4 after `max_skipped_steps` gradients in a row that were not finite.
        """
        norm, stepped = clip_and_step(
            self.accelerator, self.student, self.optimizer, learning_rate, self.settings.max_grad_norm
        )
        self.skipped = 0 if stepped else self.skipped + 1
        if self.skipped >= self.settings.max_skipped_steps:
            raise CurioError(
                f"the gradient was not finite in {self.skipped} steps in a row",
                "Lower the learning rate, or look at the data of these steps; the last checkpoint is intact.",
                GUARD,
            )
        return {
            "train/grad_norm": norm,
            "train/learning_rate": learning_rate,
            "train/skipped_steps": self.skipped,
            **{f"train/{name}": value for name, value in self._reduced().items()},
        }

    def save(self, step: int, teacher: Teacher | None = None, **counters: Any) -> Path:
        """Write the checkpoint after `step` and drop old ones."""
        target = self.stage.checkpoint(step)
        save_checkpoint(
            target,
            accelerator=self.accelerator,
            model=self.model,
            tokenizer=self.tokenizer,
            optimizer=self.optimizer,
            teacher=teacher.weights if teacher else None,
            counters={"step": step, "skipped": self.skipped, **counters},
        )
        if self.accelerator.is_main_process:
            self.stage.prune(self.settings.keep_last)
        return target

    def describe(self) -> str:
        """The precision and the processes, for the first line of the log."""
        processes = self.accelerator.num_processes
        return f"{self.dtype_name} products, {processes} process(es) on {self.accelerator.device.type}"

    @property
    def dtype_name(self) -> Literal["float32", "bfloat16"]:
        """The precision of the large products."""
        import torch

        return "bfloat16" if self.student_module.compute_dtype == torch.bfloat16 else "float32"

    @property
    def student_module(self) -> Student:
        """The student without accelerate's wrapper."""
        return self.accelerator.unwrap_model(self.student)

    def _observe(self, rows: HeadRows) -> None:
        self.stats.add("loss_nats", rows.loss)
        self.stats.add("mean_token_probability", rows.logp.exp())
        if rows.entropy is not None:
            self.stats.add("entropy_nats", rows.entropy)
        if rows.teacher is not None:
            self.stats.add_teacher(rows.teacher)
        for name, values in rows.stats.items():
            self.stats.add(name, values, extremes=True)

    def _reduced(self) -> dict[str, float]:
        reduced = self.stats.reduce(self.accelerator)
        self.stats = StepStats()
        return reduced
