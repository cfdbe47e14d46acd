"""Log-probabilities through the chunked head without a gradient: of any model, and of the tempered teacher."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from curiosft_cli.objectives.temperature import TemperatureSettings, solve
from curiosft_cli.objectives.tokens import LOGIT_FLOOR
from curiosft_cli.train.head.chunks import (
    HeadProduct,
    cat_rows,
    detached,
    entropy_,
    largest,
    of_labels,
    powers_,
    tempered_logp_,
)
from curiosft_cli.train.head.head_pass import HeadPass


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
        search_s: seconds in the search (on a GPU: until its kernels were launched).
    """

    logp: Tensor
    tau: Tensor
    entropy: Tensor
    target: Tensor
    status: Tensor
    search_s: float = 0.0


def head_logp(
    hidden: Tensor,
    head_weight: Tensor,
    labels: Tensor,
    *,
    chunk: int = 1024,
    compute_dtype: torch.dtype = torch.float32,
    head_pass: HeadPass = HeadPass(),
) -> ScoredRows:
    """Log-probabilities of N labels without a gradient, and their entropies and nucleus masses on demand.

    Arguments as for `fused_head`.
    """
    with detached(hidden.device):
        head = HeadProduct(hidden, head_weight, chunk, compute_dtype, head_pass.temperature)
        logps, entropies, masses = [], [], []
        for rows in head.chunks():
            for own, tile in head.tiles(head.logits(rows)):
                powers = head.beside(tile)
                multiple, log_total = powers_(tile, out=powers)
                logps.append(of_labels(tile, labels[rows][own]) - log_total)
                if head_pass.entropy:
                    entropies.append(entropy_(tile, powers, multiple, log_total))
                if head_pass.top_p is not None:
                    masses.append(nucleus_mass(powers.div_(multiple[:, None]), head_pass.top_p))
        return ScoredRows(
            cat_rows(logps, hidden.device),
            cat_rows(entropies, hidden.device) if head_pass.entropy else None,
            cat_rows(masses, hidden.device) if head_pass.top_p is not None else None,
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
    with detached(hidden.device):
        head = HeadProduct(hidden, head_weight, chunk, compute_dtype)
        return joined_rows(
            [tempered_rows(head, head.logits(rows), labels[rows], settings) for rows in head.chunks()],
            hidden.device,
        )


def tempered_rows(head: HeadProduct, logits: Tensor, labels: Tensor, settings: TemperatureSettings) -> TeacherRows:
    """The teacher's rows of one chunk: the largest logits of each, a temperature from them, then log pi_tch(y; tau)."""
    top = largest(logits, settings.topk) / head.temperature
    started = time.perf_counter()
    solution = solve(top, settings, logits.shape[1], lambda rows: _full_entropy(head, logits, rows), logits.dtype)
    search_s = time.perf_counter() - started
    highest, logp = top.amax(-1), torch.empty(len(logits), device=logits.device)
    for own, tile in head.tiles(logits):
        logp[own] = tempered_logp_(tile, labels[own], highest[own], solution.tau[own])
    return TeacherRows(logp, solution.tau, solution.entropy, solution.target, solution.status, search_s)


def _full_entropy(head: HeadProduct, logits: Tensor, rows: Tensor, block: int = 16) -> Tensor:
    """Entropies [M] of the given rows of `logits`, few of them copied at a time."""
    parts = []
    for some in rows.split(block):
        for _, tile in head.tiles(logits[some]):
            powers = head.beside(tile)
            parts.append(entropy_(tile, powers, *powers_(tile.clamp_(min=LOGIT_FLOOR), out=powers)))
    return torch.cat(parts)


def joined_rows(parts: list[TeacherRows], device: torch.device) -> TeacherRows:
    def joined(name: str) -> Tensor:
        return cat_rows([getattr(part, name) for part in parts], device)

    search_s = sum(part.search_s for part in parts)
    return TeacherRows(
        joined("logp"), joined("tau"), joined("entropy"), joined("target"), joined("status").char(), search_s
    )


def nucleus_mass(probabilities: Tensor, top_p: float, enough: int = 512, block: int = 16) -> Tensor:
    """Probability [c] of the smallest set of tokens that reaches `top_p`.

    Looks at the `enough` largest first, and at more only where these do not reach `top_p`.
    """

    top = largest(probabilities, enough)
    ordered = top.sort(-1, descending=True).values
    mass = (ordered * (ordered.cumsum(-1) - ordered < top_p)).sum(-1)
    if enough < probabilities.shape[1]:
        short = (top.sum(-1) < top_p).nonzero().squeeze(-1)
        for rows in short.split(block):
            mass[rows] = nucleus_mass(probabilities[rows], top_p, 8 * enough)
    return mass
