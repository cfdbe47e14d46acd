"""What an objective sees and returns, and the few quantities of a token distribution that all of them share.

Axes: N supervised tokens, V vocabulary, K largest logits. Entropies and log-probabilities are in nats.
Nothing here imports torch while running: objectives use the methods of the tensors they are given, so that
the configuration can read their parameters without loading it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from curiosft_cli.objectives.reduction import Totals

Divisor = str | Callable[["Totals"], float]
"""How a term of the loss becomes one number. "reduction": the configured reduction. "tokens": a mean over all counted
tokens. Another name: a mean over the tokens whose `extra[name]` is true. A function of the totals: a token's weight.
"""

LOGIT_FLOOR = -1e5
"""Logits this far below the largest have probability 0 in float32; flooring keeps 0 * log 0 at 0."""


@dataclass(frozen=True)
class TokenRows:
    """The supervised tokens of one chunk; no padding, mask, shift or reduction is left to think of.

    Attributes:
        logp: [N] float32, log pi(y_t) of the student, carries the gradient.
        labels: [N] int64, the expert (or sampled) token y_t.
        extra: [N] each, detached, exactly the names that the objective `needs`.
        entropy: [N] float32, full-vocabulary entropy of the student, carries the gradient (`needs`
            "entropy").
        logits: [N, V] float32, the student's, carry the gradient (`needs` "logits").
        ref_logits: [N, V] float32, the frozen base model's or the teacher's, detached (`needs` "ref_logits").
    """

    logp: Tensor
    labels: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    entropy: Tensor | None = None
    logits: Tensor | None = None
    ref_logits: Tensor | None = None


@dataclass(frozen=True)
class TokenLoss:
    """One loss per token, not reduced.

    Attributes:
        loss: [N], or one [N] per term when the terms have different divisors (`BoundObjective.terms`).
        stats: [N] each, for logging only; never part of the gradient.
    """

    loss: Tensor | tuple[Tensor, ...]
    stats: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def terms(self) -> tuple[Tensor, ...]:
        return self.loss if isinstance(self.loss, tuple) else (self.loss,)


@dataclass(frozen=True)
class BoundObjective:
    """An objective with its parameters filled in.

    Attributes:
        fn: rows to loss.
        needs: what `fn` reads beside `logp` and `labels`: "entropy", "logits", "ref_logits", or names of
            `extra`.
        terms: the divisor of each term of the loss.
        params: every parameter by name, also those of the functions beside `fn`.
    """

    fn: Callable[[TokenRows], TokenLoss]
    needs: frozenset[str]
    terms: tuple[Divisor, ...]
    params: Mapping[str, Any]

    def filled(self, function: FunctionType) -> Callable[..., Any]:
        """One of the functions beside `fn`, with its parameters filled in."""
        return _filled(function, self.params)


@dataclass(frozen=True)
class Objective:
    """An entry of the tables: the function, what it needs, and how its terms are divided.

    `needs` and `terms` may depend on the parameters (a coefficient of 0 needs nothing): then they are
    functions of the complete parameter mapping.

    `beside` holds functions that the stage calls for this objective. Their keyword-only arguments are parameters of
    the objective too.
    """

    fn: FunctionType
    needs: frozenset[str] | Callable[[Mapping[str, Any]], frozenset[str]] = frozenset()
    terms: tuple[Divisor, ...] | Callable[[Mapping[str, Any]], tuple[Divisor, ...]] = ("reduction",)
    beside: tuple[FunctionType, ...] = ()

    def bind(self, **params: Any) -> BoundObjective:
        """Fill in `params`; what is not given keeps its default.

        Raises:
            TypeError: a name that is not a parameter of this objective.
        """
        legal = objective_parameters(self)
        if unknown := sorted(set(params) - set(legal)):
            raise TypeError(f"{self.fn.__name__} has no parameter {unknown}; legal: {sorted(legal)}")
        full = {name: parameter.default for name, parameter in legal.items()} | params
        needs = self.needs if isinstance(self.needs, frozenset) else self.needs(full)
        terms = self.terms if isinstance(self.terms, tuple) else self.terms(full)
        return BoundObjective(_filled(self.fn, full), needs, terms, full)


def objective_parameters(objective: Objective) -> dict[str, inspect.Parameter]:
    """The objective's own parameters: the keyword-only arguments of its functions, annotations resolved."""
    return {
        name: p.replace(annotation=eval(p.annotation, fn.__globals__)) if isinstance(p.annotation, str) else p
        for fn in (objective.fn, *objective.beside)
        for name, p in _keyword_only(fn).items()
    }


def _keyword_only(function: FunctionType) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters
    return {name: p for name, p in found.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _filled(function: FunctionType, params: Mapping[str, Any]) -> Callable[..., Any]:
    return partial(function, **{name: params[name] for name in _keyword_only(function)})


def of_labels(values: Tensor, labels: Tensor) -> Tensor:
    """The value [N] at each row's label, of values [N, V]."""
    return values.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def label_logp(logits: Tensor, labels: Tensor) -> Tensor:
    """log pi(y) [N] from logits [N, V] and labels [N]: z_y - logsumexp(z)."""
    return of_labels(logits, labels) - logits.logsumexp(-1)


def tempered_logp(logits: Tensor, tau: Tensor | float) -> Tensor:
    """log softmax(z / tau) [N, V] for logits [N, V] and tau [N] or a number (Eq. 3 and 4), in float32."""
    scale = tau if isinstance(tau, (int, float)) else tau.unsqueeze(-1)
    return (logits.float() / scale).log_softmax(-1)


def entropy(logits: Tensor, tau: Tensor | float = 1.0) -> Tensor:
    """Entropy [N] of softmax(z / tau) over the whole last axis, with 0 log 0 = 0."""
    logp = tempered_logp(logits, tau)
    return -(logp.exp() * logp.clamp(min=LOGIT_FLOOR)).sum(-1)


def top_k_logits(logits: Tensor, topk: int) -> Tensor:
    """The min(topk, V) largest logits [N, K] of each row, in any order; the set does not depend on tau."""
    size = logits.shape[-1]
    return logits if topk >= size else logits.topk(topk, dim=-1, sorted=False).values


def top_k_entropy(logits: Tensor, topk: int, tau: Tensor | float = 1.0) -> Tensor:
    """Entropy [N] of softmax(z / tau) renormalised over the `topk` largest logits (Eq. 17)."""
    return entropy(top_k_logits(logits.float(), topk), tau)
