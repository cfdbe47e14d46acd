"""What the training loops of sft and rl share: the student, its optimizer, one update, and its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curiosft_cli.objectives.reduction import Totals, term_weights
from curiosft_cli.run.digests import STATE
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.workers import computing
from curiosft_cli.train.batches import Pack, make_pack, rank_packs
from curiosft_cli.train.checkpoint import METRICS, check_room, load_state, save_checkpoint
from curiosft_cli.train.head.cpu_kernels import kernels_for
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.load import compute_dtype, load_config, load_model, load_tokenizer, name_of
from curiosft_cli.train.lora import add_adapters, trained
from curiosft_cli.train.optim import clip_and_step, make_optimizer
from curiosft_cli.train.shards import distribute, local_shard, shard_kind, shards_of
from curiosft_cli.train.size import check_memory
from curiosft_cli.train.stats import StepStats, peak_memory_gib
from curiosft_cli.train.student import Student
from curiosft_cli.train.totals import count_totals
from curiosft_cli.train.weight_copy import without_dropout

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.objectives.reduction import Divisor
    from curiosft_cli.run.sections import Config, Training
    from curiosft_cli.train.encode import Row
    from curiosft_cli.train.head.fused import HeadRows
    from curiosft_cli.train.saved_state import SavedState


@dataclass
class Loop:
    """The state of a training stage on one rank.

    Attributes:
        model: the unwrapped student's transformer.
        student: the module to call for a pass, see `distribute`.
        stats: per-token values of the current step.
        skipped: steps whose gradient was dropped, since the start.
        skipped_in_a_row: of these, the ones since the last step that was taken.
        counters: what the checkpoint kept that this run resumed from.
        last: gradient norm and learning rate of the last update.
        best: highest score of an evaluation so far; its checkpoint is kept.
    """

    settings: Training
    stage: StageDir
    accelerator: Accelerator
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    student: nn.Module
    optimizer: Optimizer
    source: Path | None
    stats: StepStats = field(default_factory=StepStats)
    skipped: int = 0
    skipped_in_a_row: int = 0
    counters: Mapping[str, Any] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    best: float | None = None

    @classmethod
    def open(
        cls,
        config: Config,
        settings: Training,
        stage: StageDir,
        init: str,
        accelerator: Accelerator,
    ) -> Loop:
        """Load the newest checkpoint of this stage, or `init` where no checkpoint exists or adapters are trained."""
        import torch

        steps = stage.checkpoints()
        source = stage.checkpoint(steps[-1]) if steps else None
        path = init if settings.lora.rank else str(source or init)
        tokenizer = load_tokenizer(path, config.model)
        dtype = compute_dtype(settings.precision, accelerator.device)
        check_memory(config, settings, load_config(path, config.model), accelerator)
        model = load_model(
            path,
            config.model,
            dtype=torch.float32,
            device=accelerator.device,
            products=dtype,
            compiled=settings.compile,
            empty=shard_kind(config.launch, accelerator.num_processes) is not None and not accelerator.is_main_process,
        ).train()
        if settings.lora.rank:
            add_adapters(model, settings.lora, config.run.seed)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        student = distribute(
            Student(
                model,
                chunk=settings.head_chunk,
                compute_dtype=dtype,
                compiled=settings.compile,
                kernels=kernels_for(accelerator.device),
            ),
            accelerator,
            config.launch,
        )
        return cls(settings, stage, accelerator, tokenizer, model, student, make_optimizer(model, settings), source)

    def resume(self, tensors: Mapping[str, Tensor]) -> tuple[int, SavedState | None]:
        """Load adapters, optimizer and random numbers; return the number of steps done and what else was saved.

        Args:
            tensors: what `save` will be given on this rank, to know its size.

        Raises:
            CurioError: exit code 4 when the disk has no space for the next checkpoint.
        """
        if self.accelerator.is_main_process:
            check_room(self.stage.path, self.model, self._kept(tensors))
        if self.source is None:
            return 0, None
        self.counters, saved = load_state(self.source, accelerator=self.accelerator, optimizer=self.optimizer)
        for name, weight in self._adapters().items():
            local_shard(weight).copy_(saved.shard(name, weight))
        self.skipped = self.counters.get("skipped", 0)
        self.skipped_in_a_row = self.counters.get("skipped_in_a_row", 0)
        self.best = self.counters.get("best")
        return self.counters["step"], saved

    def packs(self, rows: Sequence[Row], max_tokens: int) -> list[Pack]:
        """This rank's packs of the rows of one update."""
        ranks = self.accelerator.num_processes
        return rank_packs(
            rows, max_tokens, rank=self.accelerator.process_index, ranks=ranks, device=self.accelerator.device
        )

    def single_pack(self, row: Row) -> Pack:
        """One row by itself."""
        return make_pack([row], [0], self.accelerator.device)

    def totals(
        self,
        rows: Sequence[Row],
        packs: Sequence[Pack],
        max_length: int,
        objective: BoundObjective,
        extras: Sequence[Mapping[str, Tensor]],
        micro_rows: int = 1,
    ) -> Totals:
        """The divisors of one update, known before its first backward pass."""
        return count_totals(rows, packs, max_length, objective, extras, micro_rows, self.everywhere)

    def weights_of(self, pack: Pack, divisor: Divisor, totals: Totals) -> Tensor:
        """One term's reduction as weights [N]: summed over tokens, packs and ranks they give the step's loss."""
        rows = pack.sequence.new_tensor(pack.members)[pack.sequence]
        weights = term_weights(divisor, self.settings.reduction, rows, totals)
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
        head_pass: HeadPass = HeadPass(entropy=True),
    ) -> HeadRows:
        """Add one pack's gradients and statistics; the ranks exchange gradients with the `last` one."""
        with self.timed("student"), nullcontext() if last else self.accelerator.no_sync(self.student):
            weights = tuple(self.weights_of(pack, divisor, totals) for divisor in objective.terms)
            loss, rows = self.student(pack, objective, extra, weights, head_pass)
            self.accelerator.backward(loss)
        if pack.counted:
            self.stats.add_rows(rows)
        return rows

    def update(self, learning_rate: float, skip_above: float | None = None) -> None:
        """Clip and step; a gradient whose norm is above `skip_above` is dropped.

        Raises:
            CurioError: exit code 4 after `max_skipped_steps` gradients in a row that were dropped.
        """
        with self.timed("optimizer"):
            norm, stepped = clip_and_step(
                self.student, self.optimizer, learning_rate, self.settings.max_grad_norm, skip_above
            )
        self.skipped += not stepped
        self.skipped_in_a_row = 0 if stepped else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= self.settings.max_skipped_steps:
            raise CurioError(
                f"the gradient was not finite{f', or above {skip_above:g},' if skip_above else ''} "
                f"in {self.skipped_in_a_row} steps in a row",
                "Lower the learning rate, or check the data of these steps; the last checkpoint is intact.",
                GUARD,
            )
        self.last = {"grad_norm": norm, "learning_rate": learning_rate, "skipped_steps": self.skipped}

    def report(self) -> dict[str, float]:
        """The metrics of the steps since the last report."""
        seen, seconds = self.stats.reduce(self.accelerator)
        return {
            **{f"train/{name}": value for name, value in self.last.items()},
            **{f"train/{name}": value for name, value in seen.items()},
            **{f"time/{part}_s": value for part, value in seconds.items()},
            "memory/peak_gib": peak_memory_gib(self.accelerator.device),
        }

    @contextmanager
    def timed(self, part: str, *, elsewhere: bool = False) -> Generator[None]:
        """Count the time inside as that `part` of the step (on a GPU: until its kernels were launched).

        Args:
            part: name in the metrics.
            elsewhere: another program works meanwhile, for example an engine.
        """
        started = time.perf_counter()
        try:
            with nullcontext() if elsewhere else computing():
                yield
        finally:
            self.stats.add_seconds(part, time.perf_counter() - started)

    def evaluating(self) -> AbstractContextManager[None]:
        """The student without dropout."""
        return without_dropout(self.student_module)

    def is_best(self, score: float | None) -> bool:
        """Whether an evaluation scored higher than every one before it."""
        return score is not None and (self.best is None or score > self.best)

    @property
    def saved_metrics(self) -> Path | None:
        """The metrics up to the step of the checkpoint that this run continues from."""
        return self.source / STATE / METRICS if self.source else None

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        score: float | None = None,
        metrics: Path | None = None,
        **counters: Any,
    ) -> Path:
        """Write the checkpoint after `step`, with its metrics and the score of its evaluation if any; drop old ones.

        Args:
            tensors: what else this rank needs to continue, by name.
        """
        target = self.stage.checkpoint(step)
        if self.is_best(score):
            self.best = score
        own = {"step": step, "best": self.best, "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}
        save_checkpoint(
            target,
            accelerator=self.accelerator,
            model=self.model,
            tokenizer=self.tokenizer,
            optimizer=self.optimizer,
            tensors=self._kept(tensors),
            counters={**own, **counters},
            score=score,
            metrics=metrics,
        )
        if self.accelerator.is_main_process:
            self.stage.prune(self.settings.keep_last, self.settings.keep_every)
        return target

    def _adapters(self) -> dict[str, nn.Parameter]:
        """What a checkpoint keeps beside the merged weights where adapters are trained."""
        kept = trained(self.model) if self.settings.lora.rank else {}
        return {f"adapter.{name}": weight for name, weight in kept.items()}

    def _kept(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """These tensors, and this rank's part of the adapters."""
        return {**tensors, **{name: local_shard(weight) for name, weight in self._adapters().items()}}

    def describe(self) -> str:
        """The precision and the processes, for the first line of the log."""
        parts = shards_of(self.model)[0]
        held = f", the model in {parts} parts" if parts > 1 else ""
        return f"{self.dtype_name} products, {self.ranks} process(es) on {self.accelerator.device.type}{held}"

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        return self.accelerator.num_processes

    @property
    def dtype_name(self) -> Literal["float32", "bfloat16"]:
        """The precision of the large products."""
        return name_of(self.student_module.compute_dtype)

    @property
    def student_module(self) -> Student:
        """The student without accelerate's wrapper."""
        return self.accelerator.unwrap_model(self.student)

    def everywhere(self, counts: list[int]) -> list[int]:
        """The sums of some counts over the ranks."""
        import torch

        if self.accelerator.num_processes == 1 or not counts:
            return counts
        return self.accelerator.reduce(torch.tensor(counts, device=self.accelerator.device), "sum").tolist()
