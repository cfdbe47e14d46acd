"""Log-probabilities through the chunked head without a gradient: of any model, and of the tempered teacher."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from curiosft_cli.objectives.temperature import TemperatureSettings, solve
from curiosft_cli.objectives.tokens import of_labels, tempered_logp
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.kernels import Kernels
from curiosft_cli.train.head.product import HeadProduct, detached


@dataclass(frozen=True)
class ScoredRows:
    """Values of N labels, detached.

    Attributes:
        logp: [N] float32, log pi(y) in nats.
        correct: [N] bool, whether no token is likelier than y.
        entropy: [N] float32 in nats, or None if the pass did not compute it.
        kept_mass: [N] float32, probability of the nucleus, or None if the pass did not compute it.
    """

    logp: Tensor
    correct: Tensor
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
        search_s: seconds in the search (on a GPU: until its kernels were launched).
    """

    logp: Tensor
    tau: Tensor
    entropy: Tensor
    target: Tensor
    status: Tensor
    search_s: float = 0.0


Rows = TypeVar("Rows", ScoredRows, TeacherRows)


def head_logp(
    hidden: Tensor,
    head_weight: Tensor,
    labels: Tensor,
    *,
    chunk: int = 1024,
    compute_dtype: torch.dtype = torch.float32,
    head_pass: HeadPass = HeadPass(),
    kernels: Kernels = Kernels(),
) -> ScoredRows:
    """Values of N labels without a gradient. Arguments as for `fused_head`."""
    with detached(hidden.device):
        head, parts = HeadProduct(hidden, head_weight, chunk, compute_dtype), []
        for rows in head.chunks():
            logits = head.logits(rows)
            for tile in kernels.tiles(logits):
                parts.append(scored_tile(logits[tile], labels[rows][tile], head_pass, kernels)[0])
        return joined(parts)


def scored_tile(logits: Tensor, labels: Tensor, head_pass: HeadPass, kernels: Kernels) -> tuple[ScoredRows, Tensor]:
    """Values of the labels [r] of a tile of logits [r, V], and the probabilities [r, V], all in float32."""
    z = at_temperature(logits, head_pass.temperature)
    z -= z.amax(-1, keepdim=True)
    probabilities = z.softmax(-1)
    # ln sum exp(z) from the probability of the largest, whose z is 0: a logsumexp would be one more pass.
    log_total = -probabilities.amax(-1).log()
    chosen = of_labels(z, labels)
    entropy = log_total - z.mul_(probabilities).sum(-1) if head_pass.entropy else None
    mass = kernels.nucleus_mass(probabilities, head_pass.top_p) if head_pass.top_p is not None else None
    return ScoredRows(chosen - log_total, chosen >= 0.0, entropy, mass), probabilities


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """A float32 copy of the logits, divided by the temperature."""
    upcast = logits.to(torch.float32, copy=True)
    return upcast if temperature == 1.0 else upcast.div_(temperature)


def teacher_logp(
    hidden: Tensor,
    head_weight: Tensor,
    labels: Tensor,
    settings: TemperatureSettings,
    *,
    chunk: int = 1024,
    compute_dtype: torch.dtype = torch.float32,
    kernels: Kernels = Kernels(),
) -> TeacherRows:
    """log pi_tch(y; tau) of N labels (Eq. 4), tau of each token from Eq. 7 and 8, without a gradient."""
    with detached(hidden.device):
        head = HeadProduct(hidden, head_weight, chunk, compute_dtype)
        parts = [tempered_rows(head.logits(rows), labels[rows], settings, kernels) for rows in head.chunks()]
        return joined(parts)


def tempered_rows(
    logits: Tensor, labels: Tensor, settings: TemperatureSettings, kernels: Kernels, temperature: float = 1.0
) -> TeacherRows:
    """The teacher's values of one chunk [c, V], whose logits are divided by `temperature` before all else."""
    top = kernels.largest(logits, settings.topk) / temperature
    guard, full_entropy = settings.low_entropy_guard, None
    if guard is not None and settings.tau_mode == "adaptive":
        full_entropy = kernels.guard_entropy(logits, top, guard, temperature)
    started = time.perf_counter()
    solution = solve(top, settings, full_entropy, logits.dtype)
    search_s = time.perf_counter() - started
    tau = solution.tau * temperature
    logp = [of_labels(tempered_logp(logits[tile], tau[tile]), labels[tile]) for tile in kernels.tiles(logits)]
    return TeacherRows(torch.cat(logp), solution.tau, solution.entropy, solution.target, solution.status, search_s)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of all chunks or tiles: tensors one after another, seconds added."""
    whole: dict[str, Any] = {}
    for name in vars(parts[0]):
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], Tensor):
            whole[name] = torch.cat(values)
        else:
            whole[name] = None if values[0] is None else sum(values)
    return type(parts[0])(**whole)
