"""The chunked language-model head: the only place where hidden states become logits.

Supervised positions are walked in chunks through one preallocated [chunk, V] buffer in the precision of the products;
a few rows at a time are worked on in float32. For an objective of the log-probability (and the entropy), autograd
differentiates it with respect to those vectors alone, and the result weighs the gradient of cross-entropy: three
products with the head per token (logits, hidden gradient, weight gradient), nothing recomputed, never a
[tokens, vocabulary] tensor. An objective of the logits is differentiated with respect to a few rows of them in the
same walk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from curiosft_cli.objectives import BoundObjective, TokenLoss, TokenRows
from curiosft_cli.objectives.tokens import entropy as entropy_of
from curiosft_cli.train.head.chunks import (
    Attached,
    HeadProduct,
    LabelLogp,
    WeightGradient,
    detached,
    entropy_,
    of_labels,
    powers_,
    release_buffers,
)
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.scores import (
    ScoredRows,
    TeacherRows,
    head_logp,
    joined_rows,
    nucleus_mass,
    teacher_logp,
    tempered_rows,
)

__all__ = [
    "HeadRows",
    "ScoredRows",
    "TeacherRows",
    "fused_head",
    "head_logp",
    "release_buffers",
    "teacher_logp",
]


@dataclass(frozen=True)
class HeadRows:
    """What one walk saw, per token and detached.

    Attributes:
        logp: [N] float32, log pi(y) in nats.
        loss: [N] float32, the objective's own value (the sum of its terms), not reduced.
        correct: [N] bool, whether no token is likelier than y.
        entropy: [N] float32 in nats, or none if it was not asked for.
        stats: [N] each, what the objective reports; empty when N is 0.
        teacher: the self-teacher's rows, or none.
        kept_mass: [N] float32, probability of the nucleus, or none if it was not asked for.
    """

    logp: Tensor
    loss: Tensor
    correct: Tensor
    entropy: Tensor | None
    stats: Mapping[str, Tensor]
    teacher: TeacherRows | None = None
    kept_mass: Tensor | None = None


def fused_head(
    hidden: Tensor,
    head_weight: Tensor,
    labels: Tensor,
    objective: BoundObjective,
    *,
    extra: Mapping[str, Tensor],
    weights: Tensor | Sequence[Tensor],
    chunk: int = 1024,
    compute_dtype: torch.dtype = torch.float32,
    head_pass: HeadPass = HeadPass(),
) -> tuple[Tensor, HeadRows]:
    """The weighted sum of an objective over N supervised tokens, with gradients made during the forward walk.

    Args:
        hidden: [N, H], the hidden states that predict `labels`. N = 0 gives a connected loss of exactly 0.
        head_weight: [V, H].
        labels: [N] int64.
        objective: with its parameters bound.
        extra: [N] each, as the objective needs.
        weights: [N], or one [N] per term: the reduction, already divided.
        chunk: tokens per buffer; bounds memory, not results.
        compute_dtype: dtype of the products; everything else is float32.
        head_pass: temperature, nucleus, reference and self-teacher; the objective reads `kept_mass` and
            `teacher_logp` in its `extra`.

    Returns:
        the scalar loss, which carries the gradient, and the detached rows.
    """
    wanted = torch.is_grad_enabled()
    with detached(hidden.device):
        walk = _Walk(
            HeadProduct(hidden, head_weight, chunk, compute_dtype, head_pass.temperature),
            objective,
            (weights,) if isinstance(weights, Tensor) else tuple(weights),
            head_pass,
            HeadProduct(*head_pass.reference, chunk, compute_dtype, slot="reference") if head_pass.reference else None,
            torch.zeros_like(hidden) if wanted and hidden.requires_grad else None,
            WeightGradient(head_weight) if wanted and head_weight.requires_grad else None,
        )
        for rows in walk.head.chunks():
            walk.step(rows, labels[rows], {name: values[rows] for name, values in extra.items()})
        grad_weight = walk.grad_weight.total() if walk.grad_weight else None
        seen = walk.collected(hidden.device)
    return Attached.apply(hidden, head_weight, walk.loss, walk.grad_hidden, grad_weight), seen


@dataclass
class _Walk:
    """One forward walk: differentiates a chunk at a time, folds it into the gradients, collects what it saw."""

    head: HeadProduct
    objective: BoundObjective
    weights: tuple[Tensor, ...]
    wanted: HeadPass
    reference: HeadProduct | None
    grad_hidden: Tensor | None
    grad_weight: WeightGradient | None
    loss: Tensor = field(init=False)
    seen: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, Tensor] = field(default_factory=dict)
    teachers: list[TeacherRows] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loss = torch.zeros((), device=self.head.hidden.device)

    def step(self, rows: slice, labels: Tensor, extra: dict[str, Tensor]) -> None:
        logits = self.head.logits(rows)
        if self.wanted.self_teacher is not None:
            self.teachers.append(tempered_rows(self.head, logits, labels, self.wanted.self_teacher))
            extra["teacher_logp"] = self.teachers[-1].logp
        if self.objective.needs & {"entropy", "logits", "ref_logits"}:
            factor = self._by_tile(logits, rows, labels, extra)
        else:
            factor = self._of_logp(logits, rows, labels, extra)
        self._fold(logits, rows, factor)

    def _of_logp(self, logits: Tensor, rows: slice, labels: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Replace the logits by what, times the factor [c] that it returns, is the gradient with respect to them."""
        chosen, multiple, log_total, spread, mass = logits.new_empty(5, len(labels), dtype=torch.float32)
        for own, tile in self.head.tiles(logits):
            powers = self.head.beside(tile)
            multiple[own], log_total[own] = powers_(tile, out=powers)
            chosen[own] = of_labels(tile, labels[own])
            logits[own] = powers
            if self.wanted.entropy:
                spread[own] = entropy_(tile, powers, multiple[own], log_total[own])
            if self.wanted.top_p is not None:
                mass[own] = nucleus_mass(powers.div_(multiple[own, None]), self.wanted.top_p)
        if self.wanted.top_p is not None:
            extra["kept_mass"] = mass
        logp = chosen - log_total
        out, (by_logp,) = self._differentiate(rows, [logp], lambda leaf: TokenRows(leaf, labels, extra))
        # d loss / d z = -by_logp (p - onehot): the factor, and 1 / multiple in it, is cheaper on [c, H] than on [c, V].
        by_label = (torch.expm1(logp) * multiple).to(logits.dtype)
        logits[torch.arange(len(labels), device=labels.device), labels] = by_label
        self._see(rows, logp, out, chosen >= 0.0, spread if self.wanted.entropy else None, extra)
        return -by_logp / multiple

    def _by_tile(self, logits: Tensor, rows: slice, labels: Tensor, extra: dict[str, Tensor]) -> None:
        """Replace the logits by the gradient with respect to them."""
        base = self.reference.tiles(self.reference.logits(rows)) if self.reference else repeat((None, None))
        differentiate = self._of_logits if self.objective.needs & {"logits", "ref_logits"} else self._of_entropy
        for (own, tile), (_, base_tile) in zip(self.head.tiles(logits), base, strict=False):
            here = slice(rows.start + own.start, rows.start + own.stop)
            few = {name: values[own] for name, values in extra.items()}
            if self.wanted.top_p is not None:
                few["kept_mass"] = nucleus_mass(torch.softmax(tile, -1), self.wanted.top_p)
            logits[own] = differentiate(tile, here, labels[own], few, base_tile)

    def _of_entropy(self, tile: Tensor, rows: slice, labels: Tensor, extra: dict[str, Tensor], _: object) -> Tensor:
        probabilities = self.head.beside(tile)
        multiple, log_total = powers_(tile, out=probabilities)
        probabilities.div_(multiple[:, None])
        chosen, spread = of_labels(tile, labels), log_total - torch.linalg.vecdot(tile, probabilities)
        logp = chosen - log_total
        out, (by_logp, by_entropy) = self._differentiate(
            rows, [logp, spread], lambda leaf, entropy: TokenRows(leaf, labels, extra, entropy)
        )
        self._see(rows, logp, out, chosen >= 0.0, spread if self.wanted.entropy else None, extra)
        # d logp / d z_j = [j = y] - p_j, dH / d z_j = -p_j (log p_j + H).
        tile.mul_(-by_entropy[:, None]).sub_((by_logp + by_entropy * (spread - log_total))[:, None])
        return tile.mul_(probabilities).scatter_add_(1, labels[:, None], by_logp[:, None])

    def _of_logits(
        self, tile: Tensor, rows: slice, labels: Tensor, extra: dict[str, Tensor], base: Tensor | None
    ) -> Tensor:
        highest, probabilities = tile.amax(-1), torch.softmax(tile, -1, out=self.head.beside(tile))
        chosen, log_total = of_labels(tile, labels) - highest, -probabilities.amax(-1).log()
        logp = chosen - log_total
        spread = highest + log_total - torch.linalg.vecdot(tile, probabilities) if self.wanted.entropy else None

        def token_rows(z: Tensor) -> TokenRows:
            own = entropy_of(z) if "entropy" in self.objective.needs else None
            return TokenRows(LabelLogp.apply(z, logp, probabilities, labels), labels, extra, own, z, base)

        out, (by_logits,) = self._differentiate(rows, [tile], token_rows)
        self._see(rows, logp, out, chosen >= 0.0, spread, extra)
        return by_logits

    def _differentiate(self, rows: slice, values: list[Tensor], make: Any) -> tuple[TokenLoss, tuple[Tensor, ...]]:
        """The objective on `make(*values)` and the gradient of its weighted sum with respect to each of `values`."""
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in values]
            out = self.objective.fn(make(*leaves))
            terms = [(term * weight[rows]).sum() for term, weight in zip(out.terms, self.weights, strict=True)]
            loss = torch.stack(terms).sum()
            grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        self.loss += loss.detach()
        return out, grads

    def _fold(self, by_logits: Tensor, rows: slice, factor: Tensor | None) -> None:
        """Add `factor` [c] (none is 1) times `by_logits` [c, V] to both gradients."""
        if self.head.temperature != 1.0:
            factor = (1.0 if factor is None else factor) / self.loss.new_full((len(by_logits),), self.head.temperature)
        states = self.head.hidden[rows]
        if self.grad_weight is not None:
            self.grad_weight.add(by_logits, states if factor is None else (states * factor[:, None]).to(states.dtype))
        if self.grad_hidden is not None:
            by_hidden = torch.mm(by_logits, self.head.weight)
            self.grad_hidden[rows] = by_hidden if factor is None else by_hidden * factor[:, None]

    def _see(
        self,
        rows: slice,
        logp: Tensor,
        out: TokenLoss,
        correct: Tensor,
        spread: Tensor | None,
        extra: Mapping[str, Tensor],
    ) -> None:
        loss = torch.stack([term.detach() for term in out.terms]).sum(0)
        values = {"logp": logp, "loss": loss, "correct": correct}
        if spread is not None:
            values["entropy"] = spread
        if self.wanted.top_p is not None:
            values["kept_mass"] = extra["kept_mass"]
        self._keep(self.seen, rows, values)
        self._keep(self.stats, rows, out.stats)

    def _keep(self, kept: dict[str, Tensor], rows: slice, values: Mapping[str, Tensor]) -> None:
        # Whole from the start: small tensors born between large ones would keep the heap's holes from being used again.
        for name, value in values.items():
            if name not in kept:
                kept[name] = value.new_empty(len(self.head.hidden))
            kept[name][rows] = value.detach()

    def collected(self, device: torch.device) -> HeadRows:
        none = torch.zeros(0, device=device)
        return HeadRows(
            logp=self.seen.get("logp", none),
            loss=self.seen.get("loss", none),
            correct=self.seen.get("correct", none).bool(),
            entropy=self.seen.get("entropy", none) if self.wanted.entropy else None,
            stats=self.stats,
            teacher=joined_rows(self.teachers, device) if self.wanted.self_teacher else None,
            kept_mass=self.seen.get("kept_mass", none) if self.wanted.top_p is not None else None,
        )
