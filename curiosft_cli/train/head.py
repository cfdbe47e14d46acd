"""The chunked language-model head: the only place where hidden states become logits.

Supervised positions are walked in chunks through one [chunk, V] buffer. For an objective of the log-probability
alone, autograd differentiates it with respect to that [chunk] vector, and the result scales the gradient of
cross-entropy in place: three products with the head per token (logits, hidden gradient, weight gradient), nothing
recomputed, and never a [tokens, vocabulary] tensor. An objective of the logits is differentiated with respect to
the chunk's logits in the same walk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from curiosft_cli.objectives import BoundObjective, TokenRows
from curiosft_cli.objectives import tokens as token_math
from curiosft_cli.objectives.temperature import Solution, TemperatureSettings, solve


@dataclass(frozen=True)
class HeadRows:
    """What one walk saw, per token and detached.

    Attributes:
        logp: [N] float32, log pi(y) in nats.
        loss: [N] float32, the objective's own value (the sum of its terms), not reduced.
        entropy: [N] float32 in nats, or none if it was not asked for.
        stats: [N] each, what the objective reports.
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


@dataclass
class _Walk:
    """The fixed part of a walk, and what it collects."""

    labels: Tensor
    objective: BoundObjective
    extra: Mapping[str, Tensor]
    weights: tuple[Tensor, ...]
    chunk: int
    compute_dtype: torch.dtype
    temperature: float
    entropy: bool
    self_teacher: TemperatureSettings | None
    reference: tuple[Tensor, Tensor] | None
    seen: list[dict[str, Any]] = field(default_factory=list)


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
        hidden: [N, H], the hidden states that predict `labels`.
        head_weight: [V, H].
        labels: [N] int64.
        objective: with its parameters bound.
        extra: [N] each, as the objective needs.
        weights: [N], or one [N] per term: the reduction, already divided.
        chunk: tokens per buffer.
        compute_dtype: dtype of the products; everything else is float32.
        temperature: the student's logits are divided by it (RL; supervised stages use 1).
        entropy: also report the student's entropy.
        self_teacher: take `teacher_logp` from the student's own logits, without a gradient.
        reference: hidden states [N, H] and head weight [V, H] of the frozen base model.

    Returns:
        the scalar loss, which carries the gradient, and the detached rows.
    """
    terms = (weights,) if isinstance(weights, Tensor) else tuple(weights)
    walk = _Walk(labels, objective, extra, terms, chunk, compute_dtype, temperature, entropy, self_teacher, reference)
    loss: Tensor = _FusedHead.apply(hidden, head_weight, walk)
    return loss, _collected(walk.seen, hidden.device)


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
    """Log-probabilities of N labels without a gradient; with `top_p`, also the mass of each nucleus."""
    with torch.no_grad():
        logps, entropies, masses = [], [], []
        for rows, logits in _chunks(hidden, head_weight, chunk, compute_dtype):
            if temperature != 1.0:
                logits.div_(temperature)
            logp, probabilities = _softmax_(logits, labels[rows])
            logps.append(logp)
            if entropy:
                entropies.append(torch.special.entr(probabilities).sum(-1))
            if top_p is not None:
                masses.append(_nucleus_mass(probabilities, top_p))
        empty = hidden.new_zeros(0, dtype=torch.float32)
        return ScoredRows(
            torch.cat(logps) if logps else empty,
            (torch.cat(entropies) if entropies else empty) if entropy else None,
            (torch.cat(masses) if masses else empty) if top_p is not None else None,
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
    """log pi_tch(y; tau) of N labels (Eq. 4), tau from Eq. 7 and 8 per token; no gradient."""
    with torch.no_grad():
        parts = [
            _tempered_(logits, labels[rows], settings)
            for rows, logits in _chunks(hidden, head_weight, chunk, compute_dtype)
        ]
    return _joined(parts, hidden.device)


class _FusedHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head_weight: Tensor, walk: _Walk) -> Tensor:
        grad_hidden = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device)
        grad_weight = torch.zeros(head_weight.shape, dtype=torch.float32, device=head_weight.device)
        low = head_weight.detach().to(walk.compute_dtype)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for rows, logits in _chunks(hidden.detach(), low, walk.chunk, walk.compute_dtype):
            value, grad = _differentiate_(logits, rows, walk)
            loss += value
            grad = grad.to(walk.compute_dtype)
            grad_hidden[rows] = (grad @ low).float()
            states = hidden.detach()[rows].to(walk.compute_dtype)
            if walk.compute_dtype == torch.float32:
                grad_weight.addmm_(grad.t(), states)
            else:
                grad_weight += grad.t() @ states
        ctx.save_for_backward(grad_hidden.to(hidden.dtype), grad_weight.to(head_weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * upstream[0], grad_weight * upstream[0], None


def _differentiate_(logits: Tensor, rows: slice, walk: _Walk) -> tuple[Tensor, Tensor]:
    """Value of a chunk's loss and its gradient with respect to the undivided logits [c, V]; overwrites `logits`."""
    labels, needs = walk.labels[rows], walk.objective.needs
    extra = {name: values[rows] for name, values in walk.extra.items()}
    weights = tuple(weight[rows] for weight in walk.weights)
    if walk.temperature != 1.0:
        logits.div_(walk.temperature)
    own_teacher = None
    if walk.self_teacher is not None:
        own_teacher = _tempered_(logits.clone(), labels, walk.self_teacher)
        extra["teacher_logp"] = own_teacher.logp
    wide = needs & {"logits", "ref_logits"}
    with torch.enable_grad():
        if wide:
            z = logits.clone().requires_grad_()
            logp, probabilities = token_math.label_logp(z, labels), logits.softmax(-1)
            spread = token_math.entropy(z) if "entropy" in needs else None
        else:
            z = None
            value, probabilities = _softmax_(logits, labels)
            logp = value.requires_grad_()
            seen_entropy = torch.special.entr(probabilities).sum(-1) if walk.entropy or "entropy" in needs else None
            spread = seen_entropy.requires_grad_() if "entropy" in needs and seen_entropy is not None else None
        out = walk.objective.fn(
            TokenRows(logp, labels, extra, spread, z if "logits" in needs else None, _reference(rows, walk))
        )
        loss = torch.stack([(term * w).sum() for term, w in zip(out.terms, weights, strict=True)]).sum()
        inputs = [z] if z is not None else [logp, *([spread] if spread is not None else [])]
        grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    entropy = torch.special.entr(probabilities).sum(-1) if walk.entropy else None
    walk.seen.append(
        {
            "logp": logp.detach(),
            "loss": torch.stack([term.detach() for term in out.terms]).sum(0),
            "entropy": entropy,
            "stats": out.stats,
            "teacher": own_teacher,
        }
    )
    grad = grads[0] if wide else _token_gradient_(probabilities, labels, grads, spread)
    return loss.detach(), grad.div_(walk.temperature) if walk.temperature != 1.0 else grad


def _token_gradient_(
    probabilities: Tensor, labels: Tensor, grads: tuple[Tensor | None, ...], spread: Tensor | None
) -> Tensor:
    """d loss / d logits [c, V] from the gradients with respect to log pi(y) and H, written over `probabilities`."""
    by_logp = grads[0] if grads[0] is not None else torch.zeros_like(labels, dtype=torch.float32)
    per_probability = -by_logp[:, None]
    if spread is not None and len(grads) > 1 and grads[1] is not None:
        # dH/dz_j = -p_j (log p_j + H)
        surprise = probabilities.clamp(min=torch.finfo(torch.float32).tiny).log_().add_(spread.detach()[:, None])
        probabilities.mul_(surprise.mul_(-grads[1][:, None]).add_(per_probability))
    else:
        probabilities.mul_(per_probability)
    probabilities.scatter_add_(1, labels[:, None], by_logp[:, None])
    return probabilities


def _reference(rows: slice, walk: _Walk) -> Tensor | None:
    if walk.reference is None:
        return None
    hidden, weight = walk.reference
    return (hidden[rows].to(walk.compute_dtype) @ weight.to(walk.compute_dtype).t()).float()


def _softmax_(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log pi(y) [c] and the probabilities [c, V], written over the logits."""
    chosen = logits.gather(1, labels[:, None]).squeeze(1)
    highest = logits.amax(-1)
    torch.softmax(logits, -1, out=logits)
    # One fused pass: the largest probability is exp(highest - logsumexp).
    return chosen - highest + logits.amax(-1).log(), logits


def _tempered_(logits: Tensor, labels: Tensor, settings: TemperatureSettings) -> TeacherRows:
    """The teacher's rows of one chunk; overwrites `logits`, whose order within a row is lost."""
    chosen = logits.gather(1, labels[:, None]).squeeze(1)
    size = logits.shape[1]
    if settings.topk >= size:
        top = logits
    elif logits.device.type == "cpu":
        # numpy's selection in place is several times faster than topk; nothing later depends on the order.
        logits.numpy().partition(size - settings.topk, axis=-1)
        top = logits[:, size - settings.topk :]
    else:
        top = logits.topk(settings.topk, dim=-1, sorted=False).values
    solution: Solution = solve(top, settings, lambda rows: token_math.entropy(logits[rows]))
    logits.div_(solution.tau[:, None])
    highest = logits.amax(-1)
    torch.softmax(logits, -1, out=logits)
    logp = chosen / solution.tau - highest + logits.amax(-1).log()
    return TeacherRows(logp, solution.tau, solution.entropy, solution.target, solution.status)


def _nucleus_mass(probabilities: Tensor, top_p: float) -> Tensor:
    """Probability [c] of the smallest set of tokens that reaches `top_p`."""
    ordered = probabilities.sort(-1, descending=True).values
    before = ordered.cumsum(-1) - ordered
    return (ordered * (before < top_p)).sum(-1)


def _chunks(hidden: Tensor, weight: Tensor, chunk: int, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Yield `(rows, logits [c, V] float32)` in a buffer that the next chunk overwrites."""
    low = weight.to(dtype)
    for start in range(0, hidden.shape[0], chunk):
        states = hidden[start : start + chunk].to(dtype)
        logits = _buffer(min(chunk, hidden.shape[0]), weight.shape[0], torch.float32, hidden.device)[: len(states)]
        if dtype == torch.float32:
            torch.mm(states, low.t(), out=logits)
        else:
            logits.copy_(states @ low.t())
        yield slice(start, start + len(states)), logits


@lru_cache(maxsize=2)
def _buffer(rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept between calls: on CPU, fresh pages of tens of MiB cost more than the pass over them.
    return torch.empty(rows, vocabulary, dtype=dtype, device=device)


def _collected(seen: list[dict[str, Any]], device: torch.device) -> HeadRows:
    if not seen:
        empty = torch.zeros(0, device=device)
        return HeadRows(empty, empty, None, {})
    teachers = [part["teacher"] for part in seen if part["teacher"] is not None]
    return HeadRows(
        logp=torch.cat([part["logp"] for part in seen]),
        loss=torch.cat([part["loss"] for part in seen]),
        entropy=torch.cat([part["entropy"] for part in seen]) if seen[0]["entropy"] is not None else None,
        stats={name: torch.cat([part["stats"][name] for part in seen]) for name in seen[0]["stats"]},
        teacher=_joined(teachers, device) if teachers else None,
    )


def _joined(parts: list[TeacherRows], device: torch.device) -> TeacherRows:
    if not parts:
        empty = torch.zeros(0, device=device)
        return TeacherRows(empty, empty, empty, empty, empty.char())
    return TeacherRows(
        *(torch.cat([getattr(part, name) for part in parts]) for name in TeacherRows.__dataclass_fields__)
    )
