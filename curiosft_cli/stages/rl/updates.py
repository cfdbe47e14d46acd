"""The policy's updates: what the loss of an RL method reads, token by token, and the loss over a mini-batch.

Advantages and expert marks come from the samples. Old log-probabilities cost a pass without gradient, so they are
computed only where they differ from the current ones: for the samples of a step's second update and later ones. The
correction of the engine's log-probabilities needs the mass of the sampler's nucleus. It comes from that pass, or from
the pass of the first update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from curiosft_cli.stages.rl.groups import TrainingSample, mini_batches
from curiosft_cli.stages.rl.shared_packs import can_share, shared_rank_packs
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.optim import constant_lr
from curiosft_cli.train.start import gather_rows

if TYPE_CHECKING:
    from torch import Tensor

    from curiosft_cli.objectives import BoundObjective, RlMethod
    from curiosft_cli.run.sections import Rl
    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.encode import Row
    from curiosft_cli.train.loop import Loop

SUPPLIED = frozenset({"old_logp", "advantage", "expert", "entropy", "logits"})
"""What an RL objective may need: from here, or (the last two) from the head itself."""


@dataclass
class Batch:
    """The samples of one update and this rank's packs of them.

    Attributes:
        samples: of all ranks.
        packs: this rank's.
        first: the step's first update, whose old log-probabilities are the current ones.
        extras: one mapping per pack, [N] each: what the objective reads.
    """

    samples: list[TrainingSample]
    packs: list[Pack]
    first: bool
    extras: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """The training rows, in the order that packs count them."""
        return [sample.row for sample in self.samples]


@dataclass
class Updates:
    """The updates of a step, one per mini-batch of prompts.

    Attributes:
        cap: of the importance correction, or None where there is no correction.
    """

    rl: Rl
    loop: Loop
    method: RlMethod
    objective: BoundObjective
    cap: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.cap = importance_cap(self.rl, self.loop.dtype_name)

    def batches(self, samples: Sequence[TrainingSample]) -> list[Batch]:
        """The step's mini-batches, packed, with the old log-probabilities of those that are not the first.

        There are none where no sample is left to train on.
        """
        opened = [
            Batch(some, self._packs([sample.row for sample in some]), first=number == 0)
            for number, some in enumerate(mini_batches(samples, self.rl.mini_batch_prompts))
        ]
        for batch in opened:
            batch.extras = [by_token(batch.samples, pack) for pack in batch.packs]
            if not batch.first:
                for pack, extra in zip(batch.packs, batch.extras, strict=True):
                    self._score(pack, extra)
        return opened

    def accumulate(self, batch: Batch) -> None:
        """The loss over one mini-batch, and its gradients."""
        rl, loop = self.rl, self.loop
        if self.method.keep is not None:
            self._keep_advantages(batch, self.objective.filled(self.method.keep))
        objective = anchored(self.objective, rl, self.cap) if batch.first else self.objective
        head_pass = HeadPass(temperature=rl.temperature, top_p=nucleus(rl) if batch.first else None, entropy=True)
        totals = loop.totals(batch.rows, batch.packs, rl.max_completion_length, objective, batch.extras)
        for place, (pack, extra) in enumerate(zip(batch.packs, batch.extras, strict=True), start=1):
            last = place == len(batch.packs)
            seen = loop.accumulate(pack, objective, extra, totals, last=last, head_pass=head_pass)
            if batch.first and pack.counted:
                self._record_sampler(extra, seen.logp, seen.kept_mass)

    def learning_rate(self, step: int, number: int) -> float:
        """Of update `number` of the 0-based step."""
        rl = self.rl
        update = step * (rl.prompts_per_step // rl.mini_batch_prompts) + number
        return constant_lr(update, peak=rl.learning_rate, warmup_steps=rl.warmup_steps)

    def _packs(self, rows: Sequence[Row]) -> list[Pack]:
        most, loop = self.rl.max_tokens_per_batch, self.loop
        if not (self.rl.share_prompts and can_share(loop.model.config._attn_implementation)):
            return loop.packs(rows, most)
        accelerator = loop.accelerator
        return shared_rank_packs(
            rows, most, rank=accelerator.process_index, ranks=loop.ranks, device=accelerator.device
        )

    def _score(self, pack: Pack, extra: dict[str, Tensor]) -> None:
        """Add the old policy's log-probabilities and correct the advantages of sampled tokens."""
        head_pass = HeadPass(temperature=self.rl.temperature, top_p=nucleus(self.rl))
        old = self.loop.student_module.scored(pack, head_pass)
        extra["old_logp"] = old.logp
        if pack.counted:
            self._record_sampler(extra, old.logp, old.kept_mass)
            if self.cap is not None:
                extra["advantage"] = corrected(extra, old.logp, old.kept_mass, self.rl, self.cap)

    def _keep_advantages(self, batch: Batch, keep: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Set the advantage of the expert tokens that the method does not keep to 0, over all ranks' tokens."""
        import torch

        if not any(sample.given for sample in batch.samples):
            return
        loop, head_pass = self.loop, HeadPass(temperature=self.rl.temperature, entropy=True)
        seen = [loop.student_module.scored(pack, head_pass).entropy for pack in batch.packs]
        own = [
            entropy[extra["expert"]]
            for pack, extra, entropy in zip(batch.packs, batch.extras, seen, strict=True)
            if pack.counted and entropy is not None
        ]
        mine = torch.cat(own) if own else torch.zeros(0, device=loop.accelerator.device)
        everywhere, start = gather_rows(loop.accelerator, mine)
        kept = keep(everywhere, torch.ones_like(everywhere, dtype=torch.bool))
        parts = iter(kept[start : start + len(mine)].split([len(entropy) for entropy in own]))
        for pack, extra in zip(batch.packs, batch.extras, strict=True):
            if pack.counted:
                advantage = extra["advantage"].clone()
                advantage[extra["expert"]] *= next(parts)
                extra["advantage"] = advantage

    def _record_sampler(
        self, extra: Mapping[str, Tensor], logp: Tensor, kept_mass: Tensor | None, far_nats: float = 0.1
    ) -> None:
        """Record how the sampler differs from the trainer on the sampled tokens before the step's first update.

        Args:
            logp: [N] of the trainer at the sampling temperature, nats.
            kept_mass: [N] of the nucleus, or None.
            far_nats: tokens further apart than this are counted.
        """
        own, engine = ~extra["expert"], _engine_logp(extra, kept_mass, self.rl)
        gap, stats = (logp - engine).abs()[own], self.loop.stats
        stats.add("mismatch_nats", gap, extremes=True)
        stats.add("mismatch_share", gap > far_nats)
        if kept_mass is not None:
            stats.add("kept_mass", kept_mass[own], extremes=True)
        if self.cap is not None:
            ratio = importance(logp, engine, kept_mass, self.cap)[own]
            stats.add("importance", ratio, extremes=True)
            stats.add("importance_capped", ratio >= self.cap)


def by_token(samples: Sequence[TrainingSample], pack: Pack) -> dict[str, Tensor]:
    """Advantage, expert mark and what the engine reported (0 for expert tokens) of a pack's tokens, [N] each."""
    import torch

    advantage: list[float] = []
    expert: list[bool] = []
    engine: list[float] = []
    for member in pack.members:
        sample = samples[member]
        sampled = len(sample.row.response_ids) - sample.given
        advantage += [sample.given_advantage] * sample.given + [sample.advantage] * sampled
        expert += [True] * sample.given + [False] * sampled
        engine += [0.0] * sample.given + list(sample.engine_logp)
    device = pack.labels.device
    return {
        "advantage": torch.tensor(advantage, dtype=torch.float32, device=device),
        "expert": torch.tensor(expert, dtype=torch.bool, device=device),
        "engine_logp": torch.tensor(engine, dtype=torch.float32, device=device),
    }


def importance_cap(rl: Rl, dtype: str) -> float | None:
    """The cap of the correction, or none where there is no correction: `auto` corrects bfloat16 products."""
    on = rl.importance_sampling == "on" or (rl.importance_sampling == "auto" and dtype == "bfloat16")
    return rl.importance_cap if on else None


def importance(
    logp: Tensor, engine_logp: Tensor, kept_mass: Tensor | None, cap: float, log_ratio_clamp: float = 20.0
) -> Tensor:
    """min(pi_trainer / pi_sampler, cap) [N], detached.

    The sampler drew from its nucleus, renormalised: pi_sampler = pi_engine / kept_mass. Without the mass the ratio
    would be too large by exactly that.

    Args:
        logp: [N] nats, of the trainer at the sampling temperature.
        engine_logp: [N] nats, of the engine at that temperature, over the whole vocabulary.
        kept_mass: [N], or none where all of the vocabulary was sampled from.
        cap: upper bound of the ratio.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    ratio = (logp.detach() - engine_logp).clamp(-log_ratio_clamp, log_ratio_clamp).exp()
    return (ratio if kept_mass is None else ratio * kept_mass).clamp(max=cap)


def corrected(extra: Mapping[str, Tensor], logp: Tensor, kept_mass: Tensor | None, rl: Rl, cap: float) -> Tensor:
    """The advantages [N], those of sampled tokens times their `importance`."""
    ratio = importance(logp, _engine_logp(extra, kept_mass, rl), kept_mass, cap)
    return extra["advantage"] * ratio.masked_fill(extra["expert"], 1.0)


def anchored(objective: BoundObjective, rl: Rl, cap: float | None) -> BoundObjective:
    """In a step's first update the old log-probabilities are the current ones: no pass is spent on them.

    With a `cap` the advantages are corrected in the same walk, which supplies `extra["kept_mass"]` where there is a
    nucleus.
    """

    def fn(rows: Any) -> Any:
        extra = {**rows.extra, "old_logp": rows.logp.detach()}
        if cap is not None:
            extra["advantage"] = corrected(extra, rows.logp, extra.get("kept_mass"), rl, cap)
        return objective.fn(replace(rows, extra=extra))

    return replace(objective, fn=fn)


def nucleus(rl: Rl) -> float | None:
    """The mass that rollouts are drawn from, or none for all of it."""
    return rl.top_p if rl.top_p < 1.0 else None


def _engine_logp(extra: Mapping[str, Tensor], kept_mass: Tensor | None, rl: Rl) -> Tensor:
    """The engine's log-probabilities [N] at the sampling temperature over the whole vocabulary.

    At temperature 1 it reports these; at others those of its nucleus, renormalised.
    """
    if kept_mass is None or rl.temperature == 1.0:
        return extra["engine_logp"]
    return extra["engine_logp"] + kept_mass.log()
