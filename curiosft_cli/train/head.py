"""The chunked language-model head: the only place where hidden states become logits.

Supervised positions are walked in chunks through preallocated [chunk, V] buffers. For an objective of the
log-probability (and the entropy), autograd differentiates it with respect to those [chunk] vectors alone, and the
result weighs the gradient of cross-entropy: three products with the head per token (logits, hidden gradient,
weight gradient), nothing recomputed, never a [tokens, vocabulary] tensor. An objective of the logits is
differentiated with respect to the chunk's logits in the same walk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curiosft_cli.objectives import BoundObjective, TokenLoss, TokenRows
from curiosft_cli.objectives.temperature import TemperatureSettings, solve
from curiosft_cli.objectives.tokens import entropy as entropy_of
from curiosft_cli.objectives.tokens import label_logp


@dataclass(frozen=True)
class HeadRows:
    """What one walk saw, per token and detached.

    Attributes:
        logp: [N] float32, log pi(y) in nats.
        loss: [N] float32, the objective's own value (the sum of its terms), not reduced.
        entropy: [N] float32 in nats, or none if it was not asked for.
        stats: [N] each, what the objective reports; empty when N is 0.
        teacher: the self-teacher's rows, or none.
    """

    logp: Tensor
    loss: Tensor
    entropy: Tensor | None
    stats: Mapping[str, Tensor]
    teacher: TeacherRows | None = None


@dataclass(frozen=True)
class ScoredRows:
    """Log-probabilities [N] of the labels in nats, and, where asked for, entropies [N] and nucleus masses [N]."""

    logp: Tensor
    entropy: Tensor | None
    kept_mass: Tensor | None


@dataclass(frozen=True)
class TeacherRows:
    """The tempered teacher on the labels.

    Attributes:
        logp: [N] float32, log pi_tch(y; tau), full vocabulary, in nats.
        tau: [N] float32.
        entropy: [N] float32, top-k entropy at temperature 1, in nats.
        target: [N] float32, entropy aimed at, in nats.
        status: [N] int8, see `objectives.temperature`.
    """

    logp: Tensor
    tau: Tensor
    entropy: Tensor
    target: Tensor
    status: Tensor


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
    temperature: float = 1.0,
    entropy: bool = False,
    self_teacher: TemperatureSettings | None = None,
    reference: tuple[Tensor, Tensor] | None = None,
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
        temperature: the student's logits are divided by it (RL; supervised stages use 1).
        entropy: also report the student's entropy.
        self_teacher: take `teacher_logp` from the student's own logits, without a gradient.
        reference: hidden states [N, H] and head weight [V, H] of the frozen base model.

    Returns:
        the scalar loss, which carries the gradient, and the detached rows.
    """
    wanted = torch.is_grad_enabled()
    with _detached(hidden.device):
        walk = _Walk(
            _Head(hidden, head_weight, chunk, compute_dtype, temperature),
            objective,
            (weights,) if isinstance(weights, Tensor) else tuple(weights),
            entropy,
            self_teacher,
            _Head(*reference, chunk, compute_dtype, slot="reference") if reference else None,
            torch.zeros_like(hidden) if wanted and hidden.requires_grad else None,
            _WeightGradient(head_weight) if wanted and head_weight.requires_grad else None,
        )
        for rows in walk.head.chunks():
            walk.step(rows, labels[rows], {name: values[rows] for name, values in extra.items()})
        grad_weight = walk.grad_weight.total() if walk.grad_weight else None
        seen = _collected(walk.seen, hidden.device)
    return _Attached.apply(hidden, head_weight, walk.loss, walk.grad_hidden, grad_weight), seen


def head_logp(
    hidden: Tensor,
    head_weight: Tensor,
    labels: Tensor,
    *,
    chunk: int = 1024,
    compute_dtype: torch.dtype = torch.float32,
    temperature: float = 1.0,
    entropy: bool = False,
    top_p: float | None = None,
) -> ScoredRows:
    """Log-probabilities of N labels without a gradient; with `top_p`, also the mass of each nucleus.

    Arguments as for `fused_head`. `top_p`: the nucleus is the smallest set of most likely tokens that reaches it.
    """
    with _detached(hidden.device):
        head = _Head(hidden, head_weight, chunk, compute_dtype, temperature)
        logps, entropies, masses = [], [], []
        for rows in head.chunks():
            logits = head.logits(rows)
            probabilities = head.buffer("probabilities", rows) if entropy else logits
            logp, lse = _softmax(logits, labels[rows], out=probabilities)
            logps.append(logp)
            if entropy:
                entropies.append(lse - logits.mul_(probabilities).sum(-1))
            if top_p is not None:
                masses.append(_nucleus_mass_(probabilities, top_p))
        return ScoredRows(
            _cat(logps, hidden.device),
            _cat(entropies, hidden.device) if entropy else None,
            _cat(masses, hidden.device) if top_p is not None else None,
        )


def teacher_logp(
    hidden: Tensor,
    head_weight: Tensor,
    labels: Tensor,
    settings: TemperatureSettings,
    *,
    chunk: int = 1024,
    compute_dtype: torch.dtype = torch.float32,
) -> TeacherRows:
    """log pi_tch(y; tau) of N labels (Eq. 4), tau from Eq. 7 and 8 per token; no gradient, same buffers."""
    with _detached(hidden.device):
        head = _Head(hidden, head_weight, chunk, compute_dtype)
        return _joined([_tempered_(head.logits(rows), labels[rows], settings) for rows in head.chunks()], hidden.device)


def release_buffers() -> None:
    """Give the chunk buffers' memory back (before an engine takes the accelerator); the next call makes new ones."""
    _buffer.cache_clear()


@lru_cache(maxsize=4)
def _buffer(slot: str, rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept between calls: on CPU, fresh pages of tens of MiB cost more than the pass over them. A few at most,
    # because a call has one vocabulary and one chunk size; `slot` tells apart those alive at once.
    return torch.empty(rows, vocabulary, dtype=dtype, device=device)


@contextmanager
def _detached(device: torch.device) -> Iterator[None]:
    """No gradient and no autocast; and outside inference mode, whose tensors a later autograd graph may not save."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        yield


@dataclass
class _Head:
    """The product of N hidden states with the head, chunk by chunk."""

    hidden: Tensor
    weight: Tensor
    chunk: int
    dtype: torch.dtype
    temperature: float = 1.0
    slot: str = "logits"

    def __post_init__(self) -> None:
        self.hidden = self.hidden.detach().to(self.dtype)
        self.weight = self.weight.detach().to(self.dtype)

    def chunks(self) -> Iterator[slice]:
        for start in range(0, len(self.hidden), self.chunk):
            yield slice(start, min(start + self.chunk, len(self.hidden)))

    def buffer(self, slot: str, rows: slice, dtype: torch.dtype = torch.float32) -> Tensor:
        whole = _buffer(slot, self.chunk, len(self.weight), dtype, self.weight.device)
        return whole[: rows.stop - rows.start]

    def logits(self, rows: slice) -> Tensor:
        """[c, V] float32, in a buffer that the next chunk overwrites."""
        out = self.buffer(self.slot, rows)
        if self.dtype == torch.float32:
            torch.mm(self.hidden[rows], self.weight.t(), out=out)
        else:
            low = self.buffer("low", rows, self.dtype)
            out.copy_(torch.mm(self.hidden[rows], self.weight.t(), out=low))
        return out if self.temperature == 1.0 else out.div_(self.temperature)


class _WeightGradient:
    """Accumulates [V, H] in float32, whatever the dtype of the products."""

    def __init__(self, weight: Tensor) -> None:
        self._shape, self._device, self._sum = weight.shape, weight.device, None

    def add(self, by_logits: Tensor, states: Tensor) -> None:
        if self._sum is None:
            self._sum = torch.mm(by_logits.t(), states).float()
        elif by_logits.dtype == torch.float32:
            self._sum.addmm_(by_logits.t(), states)
        else:
            self._sum += torch.mm(by_logits.t(), states)

    def total(self) -> Tensor:
        return torch.zeros(self._shape, device=self._device) if self._sum is None else self._sum


@dataclass
class _Walk:
    """One forward walk: differentiates a chunk at a time, folds it into the gradients, collects what it saw."""

    head: _Head
    objective: BoundObjective
    weights: tuple[Tensor, ...]
    entropy: bool
    self_teacher: TemperatureSettings | None
    reference: _Head | None
    grad_hidden: Tensor | None
    grad_weight: _WeightGradient | None
    loss: Tensor = field(init=False)
    seen: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loss = torch.zeros((), device=self.head.hidden.device)

    def step(self, rows: slice, labels: Tensor, extra: dict[str, Tensor]) -> None:
        logits, teacher = self.head.logits(rows), None
        if self.self_teacher is not None:
            copy = self.head.buffer("probabilities", rows).copy_(logits)
            teacher = _tempered_(copy, labels, self.self_teacher)
            extra["teacher_logp"] = teacher.logp
        if self.objective.needs & {"logits", "ref_logits"}:
            part = self._of_logits(logits, rows, labels, extra)
        elif "entropy" in self.objective.needs:
            part = self._of_entropy(logits, rows, labels, extra)
        else:
            part = self._of_logp(logits, rows, labels, extra)
        self.seen.append({**part, "teacher": teacher})

    def _of_logp(self, logits: Tensor, rows: slice, labels: Tensor, extra: dict[str, Tensor]) -> dict[str, Any]:
        exact = self.head.dtype == torch.float32 and (self.grad_hidden is not None or not self.entropy)
        probabilities = logits if exact else self.head.buffer("probabilities", rows)
        logp, lse = _softmax(logits, labels, out=probabilities)
        spread = lse - logits.mul_(probabilities).sum(-1) if self.entropy and not exact else None
        out, (by_logp,) = self._differentiate(rows, [logp], lambda leaf: TokenRows(leaf, labels, extra))
        probabilities[torch.arange(len(labels), device=labels.device), labels] -= 1.0
        # d loss / d z = -by_logp (p - onehot): the factor is cheaper on [c, H] than on [c, V].
        by_hidden = self._fold(probabilities, rows, -by_logp)
        if self.entropy and exact:
            assert by_hidden is not None
            # E_p[z] = h . (p W), which the hidden gradient has computed: H = lse - E_p[z] without a pass over V.
            spread = -logp - (by_hidden * self.head.hidden[rows]).sum(-1) / self.head.temperature
        return self._part(logp, out, spread)

    def _of_entropy(self, logits: Tensor, rows: slice, labels: Tensor, extra: dict[str, Tensor]) -> dict[str, Any]:
        probabilities = self.head.buffer("probabilities", rows)
        logp, lse = _softmax(logits, labels, out=probabilities)
        logits.sub_(lse[:, None])
        spread = -_row_dot(probabilities, logits)
        out, (by_logp, by_entropy) = self._differentiate(
            rows, [logp, spread], lambda leaf, entropy: TokenRows(leaf, labels, extra, entropy)
        )
        # d logp / d z_j = [j = y] - p_j, dH / d z_j = -p_j (log p_j + H).
        logits.mul_(-by_entropy[:, None]).sub_((by_logp + by_entropy * spread)[:, None])
        probabilities.mul_(logits).scatter_add_(1, labels[:, None], by_logp[:, None])
        self._fold(probabilities, rows, None)
        return self._part(logp, out, spread if self.entropy else None)

    def _of_logits(self, logits: Tensor, rows: slice, labels: Tensor, extra: dict[str, Tensor]) -> dict[str, Any]:
        base = self.reference.logits(rows) if self.reference else None

        def token_rows(z: Tensor) -> TokenRows:
            spread = entropy_of(z) if "entropy" in self.objective.needs else None
            return TokenRows(label_logp(z, labels), labels, extra, spread, z, base)

        out, (by_logits,) = self._differentiate(rows, [logits], token_rows)
        self._fold(by_logits, rows, None)
        probabilities = self.head.buffer("probabilities", rows)
        logp, lse = _softmax(logits, labels, out=probabilities)
        return self._part(logp, out, lse - logits.mul_(probabilities).sum(-1) if self.entropy else None)

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

    def _fold(self, by_logits: Tensor, rows: slice, factor: Tensor | None) -> Tensor | None:
        """Add `factor` * `by_logits` to both gradients; returns `by_logits` times the head [c, H], unscaled."""
        if self.head.temperature != 1.0:
            factor = (1.0 if factor is None else factor) / by_logits.new_full((len(by_logits),), self.head.temperature)
        states, by_hidden = self.head.hidden[rows], None
        if self.head.dtype != torch.float32:
            by_logits = self.head.buffer("low", rows, self.head.dtype).copy_(by_logits)
        if self.grad_weight is not None:
            self.grad_weight.add(by_logits, states if factor is None else (states * factor[:, None]).to(states.dtype))
        if self.grad_hidden is not None:
            by_hidden = torch.mm(by_logits, self.head.weight)
            self.grad_hidden[rows] = by_hidden if factor is None else by_hidden * factor[:, None]
        return by_hidden

    def _part(self, logp: Tensor, out: TokenLoss, spread: Tensor | None) -> dict[str, Any]:
        loss = torch.stack([term.detach() for term in out.terms]).sum(0)
        stats = {name: values.detach() for name, values in out.stats.items()}
        return {"logp": logp, "loss": loss, "entropy": spread, "stats": stats}


class _Attached(torch.autograd.Function):
    """Hands the gradients that the walk made to autograd, multiplied by what comes from above; once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        loss: Tensor,
        by_hidden: Tensor | None,
        by_weight: Tensor | None,
    ) -> Tensor:
        ctx.gradients = [by_hidden, by_weight]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place and only once: another [V, H] tensor would cost as much memory as the gradient itself.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the head's gradients are used up: a second backward needs a second forward")
        scaled = [None if grad is None else grad.mul_(upstream[0]) for grad in gradients]
        return scaled[0], scaled[1], None, None, None


def _softmax(logits: Tensor, labels: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """log pi(y) [c] and logsumexp [c]; the probabilities [c, V] go to `out`, which may be `logits` itself."""
    chosen, highest = logits.gather(1, labels[:, None]).squeeze(1), logits.amax(-1)
    torch.softmax(logits, -1, out=out)
    # One fused kernel: the largest probability is exp(highest - logsumexp).
    lse = highest - out.amax(-1).log_()
    return chosen - lse, lse


def _row_dot(left: Tensor, right: Tensor) -> Tensor:
    """sum_v left * right [c] of two [c, V], without a third [c, V]."""
    if left.device.type == "cpu":
        return torch.from_numpy(np.einsum("cv,cv->c", left.numpy(), right.numpy()))
    return torch.linalg.vecdot(left, right)


def _select_top_(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The `size` largest of each row [c, K] unordered, and a view of `values` that holds the largest of each row.

    On CPU the rows of `values` are reordered: selecting in place is several times faster than `topk`.
    """
    if size >= values.shape[1]:
        return values, values
    if values.device.type == "cpu":
        values.numpy().partition(values.shape[1] - size, axis=-1)
        top = values[:, values.shape[1] - size :]
        return top, top
    return values.topk(size, dim=-1, sorted=False).values, values


def _tempered_(logits: Tensor, labels: Tensor, settings: TemperatureSettings) -> TeacherRows:
    """The teacher's rows of one chunk; overwrites `logits`, and nothing it does depends on their order in a row."""
    chosen = logits.gather(1, labels[:, None]).squeeze(1)
    top, region = _select_top_(logits, settings.topk)
    highest = top.amax(-1)
    solution = solve(top, settings, logits.shape[1], lambda rows: _full_entropy(logits, rows))
    logits.mul_(solution.tau.reciprocal()[:, None])
    torch.softmax(logits, -1, out=logits)
    logp = (chosen - highest) / solution.tau + region.amax(-1).log_()
    return TeacherRows(logp, solution.tau, solution.entropy, solution.target, solution.status)


def _full_entropy(logits: Tensor, rows: Tensor, block: int = 16) -> Tensor:
    """Entropies [M] of the given rows of `logits`, a few copied at a time."""
    return torch.cat([entropy_of(logits[part]) for part in rows.split(block)])


def _nucleus_mass_(probabilities: Tensor, top_p: float, enough: int = 512) -> Tensor:
    """Probability [c] of the smallest set of tokens that reaches `top_p`; reorders the rows.

    Looks at the `enough` largest first, and at a whole row only where these do not reach `top_p`.
    """

    def mass(values: Tensor) -> Tensor:
        ordered = values.sort(-1, descending=True).values
        return (ordered * (ordered.cumsum(-1) - ordered < top_p)).sum(-1)

    top, _ = _select_top_(probabilities, enough)
    kept, short = mass(top), (top.sum(-1) < top_p).nonzero().squeeze(-1)
    for row in short:
        kept[row] = mass(probabilities[row])
    return kept


def _cat(parts: list[Tensor], device: torch.device) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, device=device)


def _collected(seen: list[dict[str, Any]], device: torch.device) -> HeadRows:
    teachers = [part["teacher"] for part in seen if part["teacher"] is not None]
    entropies = [part["entropy"] for part in seen if part["entropy"] is not None]
    names = seen[0]["stats"] if seen else {}
    return HeadRows(
        logp=_cat([part["logp"] for part in seen], device),
        loss=_cat([part["loss"] for part in seen], device),
        entropy=_cat(entropies, device) if entropies else None,
        stats={name: _cat([part["stats"][name] for part in seen], device) for name in names},
        teacher=_joined(teachers, device) if teachers else None,
    )


def _joined(parts: list[TeacherRows], device: torch.device) -> TeacherRows:
    names = TeacherRows.__dataclass_fields__
    return TeacherRows(**{name: _cat([getattr(part, name) for part in parts], device) for name in names})
