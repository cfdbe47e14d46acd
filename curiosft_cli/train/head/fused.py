"""The training pass over the head: loss and gradients in one forward walk over chunks of tokens.

For each chunk: logits of the chunk, the objective on its rows, the gradient folded into those of the hidden states and
of the weight. An objective of log pi(y) alone is differentiated with respect to that one number of each token, and the
result weighs the gradient of cross-entropy, p - onehot(y). Any other objective is differentiated with respect to a
tile of logits. Either way there are three products with the head per token (logits, hidden gradient, weight gradient),
nothing is computed twice, and there is never a [tokens, vocabulary] tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from curiosft_cli.objectives import BoundObjective, TokenRows
from curiosft_cli.train.head.gradients import Attached, LabelValues
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.kernels import Kernels, at_temperature
from curiosft_cli.train.head.product import HeadProduct, WeightGradient, detached
from curiosft_cli.train.head.scores import (
    ScoredRows,
    TeacherRows,
    joined,
    scored_tile,
    tempered_rows,
)


@dataclass(frozen=True)
class HeadRows(ScoredRows):
    """Values of N labels in a training pass, detached.

    Attributes:
        loss: [N] float32, the objective's own value (the sum of its terms), not reduced.
        stats: [N] each, what the objective reports.
        teacher: the self-teacher's rows, or None where the teacher has weights of its own.
    """

    loss: Tensor
    stats: Mapping[str, Tensor]
    teacher: TeacherRows | None


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
    kernels: Kernels = Kernels(),
) -> tuple[Tensor, HeadRows]:
    """The weighted sum of an objective over N supervised tokens, with gradients made during the forward walk.

    Args:
        hidden: [N, H], the hidden states that predict `labels`. N = 0 gives a connected loss of exactly 0.
        head_weight: [V, H].
        labels: [N] int64.
        objective: with its parameters bound.
        extra: [N] each, as the objective needs.
        weights: [N], or one [N] per term: the reduction, already divided.
        chunk: tokens of one product; bounds memory, not results.
        compute_dtype: dtype of the products; everything else is float32.
        head_pass: temperature, nucleus, reference and self-teacher; the objective reads `kept_mass` and
            `teacher_logp` in its `extra`.
        kernels: the passes over the vocabulary, see `cpu_kernels.kernels_for`.

    Returns:
        the scalar loss, which carries the gradient, and the detached rows.
    """
    wanted = torch.is_grad_enabled()
    with detached(hidden.device):
        walk = _Walk(
            HeadProduct(hidden, head_weight, chunk, compute_dtype),
            HeadProduct(*head_pass.reference, chunk, compute_dtype) if head_pass.reference else None,
            objective,
            (weights,) if isinstance(weights, Tensor) else tuple(weights),
            replace(head_pass, entropy=head_pass.entropy or "entropy" in objective.needs),
            kernels,
            torch.empty_like(hidden) if wanted and hidden.requires_grad else None,
            WeightGradient() if wanted and head_weight.requires_grad else None,
        )
        for rows in walk.head.chunks():
            walk.step(rows, labels[rows], {name: values[rows] for name, values in extra.items()})
        loss = torch.stack(walk.losses).sum()
        grad_weight = walk.grad_weight.total if walk.grad_weight else None
        seen = walk.collected()
    return Attached.apply(hidden, head_weight, loss, walk.grad_hidden, grad_weight), seen


@dataclass
class _Walk:
    """One walk over the chunks: its settings, the gradients that it adds to, and the values that it collects."""

    head: HeadProduct
    reference: HeadProduct | None
    objective: BoundObjective
    weights: tuple[Tensor, ...]
    head_pass: HeadPass
    kernels: Kernels
    grad_hidden: Tensor | None
    grad_weight: WeightGradient | None
    losses: list[Tensor] = field(default_factory=list)
    scores: list[ScoredRows] = field(default_factory=list)
    token_losses: list[Tensor] = field(default_factory=list)
    stats: list[Mapping[str, Tensor]] = field(default_factory=list)
    teachers: list[TeacherRows] = field(default_factory=list)

    def step(self, rows: slice, labels: Tensor, extra: dict[str, Tensor]) -> None:
        """Logits of the chunk at `rows`, the objective on them, and its gradient."""
        logits = self.head.logits(rows)
        if self.head_pass.self_teacher is not None:
            settings, temperature = self.head_pass.self_teacher, self.head_pass.temperature
            self.teachers.append(tempered_rows(logits, labels, settings, self.kernels, temperature))
            extra["teacher_logp"] = self.teachers[-1].logp
        if self.objective.needs & {"entropy", "logits", "ref_logits"}:
            factor = self._objective_of_logits(logits, rows, labels, extra)
        else:
            factor = self._objective_of_logp(logits, rows, labels, extra)
        self._fold(logits, factor / self.head_pass.temperature, rows)

    def _objective_of_logp(self, logits: Tensor, rows: slice, labels: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Replace the logits by p - onehot(y) and return a factor [c]; their product is the gradient."""
        parts = []
        for tile in self.kernels.tiles(logits):
            part, probabilities = scored_tile(logits[tile], labels[tile], self.head_pass, self.kernels)
            logits[tile] = probabilities
            parts.append(part)
        scores = joined(parts)
        by_logp = self._differentiate(rows, scores, extra, scores.logp, lambda logp: TokenRows(logp, labels, extra))
        # p - 1 of the label from log p: in low precision the difference would lose most of its digits.
        logits[torch.arange(len(labels), device=labels.device), labels] = torch.expm1(scores.logp).to(logits.dtype)
        return -by_logp

    def _objective_of_logits(self, logits: Tensor, rows: slice, labels: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Replace the logits by the gradient, with respect to the logits at the temperature; the factor [c] is 1."""
        reference = self.reference.logits(rows) if self.reference else None
        for tile in self.kernels.tiles(logits):
            scores, probabilities = scored_tile(logits[tile], labels[tile], self.head_pass, self.kernels)
            own = {name: values[tile] for name, values in extra.items()}
            base = None if reference is None else reference[tile].float()
            token_rows = partial(self._rows_of_logits, scores, probabilities, labels[tile], own, base)
            here = slice(rows.start + tile.start, rows.start + tile.stop)
            z = at_temperature(logits[tile], self.head_pass.temperature)
            logits[tile] = self._differentiate(here, scores, own, z, token_rows)
        return torch.ones(len(logits), device=logits.device)

    def _rows_of_logits(
        self,
        scores: ScoredRows,
        probabilities: Tensor,
        labels: Tensor,
        extra: dict[str, Tensor],
        base: Tensor | None,
        z: Tensor,
    ) -> TokenRows:
        """What the objective reads, as functions of the logits z [r, V]."""
        spread = scores.entropy if "entropy" in self.objective.needs else None
        logp, spread = LabelValues.apply(z, labels, probabilities, scores.logp, spread)
        return TokenRows(logp, labels, extra, spread, z, base)

    def _differentiate(
        self,
        rows: slice,
        scores: ScoredRows,
        extra: dict[str, Tensor],
        values: Tensor,
        token_rows: Callable[[Tensor], TokenRows],
    ) -> Tensor:
        """The gradient of the objective's weighted sum on `token_rows(values)` with respect to `values`."""
        if scores.kept_mass is not None:
            extra["kept_mass"] = scores.kept_mass
        with torch.enable_grad():
            leaf = values.detach().requires_grad_()
            out = self.objective.fn(token_rows(leaf))
            terms = [(term * weight[rows]).sum() for term, weight in zip(out.terms, self.weights, strict=True)]
            loss = torch.stack(terms).sum()
            (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True, materialize_grads=True)
        self.losses.append(loss.detach())
        self.scores.append(scores)
        self.token_losses.append(torch.stack([term.detach() for term in out.terms]).sum(0))
        self.stats.append({name: stat.detach() for name, stat in out.stats.items()})
        return gradient

    def _fold(self, by_logits: Tensor, factor: Tensor, rows: slice) -> None:
        """Add the chunk to both gradients; the gradient of its logits is `factor` [c] times `by_logits` [c, V]."""
        states = self.head.hidden[rows]
        if self.grad_weight is not None:
            self.grad_weight.add(by_logits, (states * factor[:, None]).to(states.dtype))
        if self.grad_hidden is not None:
            self.grad_hidden[rows] = (by_logits @ self.head.weight) * factor[:, None]

    def collected(self) -> HeadRows:
        """The values of all chunks."""
        return HeadRows(
            **vars(joined(self.scores)),
            loss=torch.cat(self.token_losses),
            stats={name: torch.cat([stats[name] for stats in self.stats]) for name in self.stats[0]},
            teacher=joined(self.teachers) if self.teachers else None,
        )
