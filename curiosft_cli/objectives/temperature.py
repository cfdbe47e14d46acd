"""The entropy-guided temperature of the teacher (Eq. 7 and 8), solved for all tokens at once in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from curiosft_cli.objectives.tokens import LOGIT_FLOOR, entropy, top_k_entropy, top_k_logits

if TYPE_CHECKING:
    from torch import Tensor, dtype

FREE, AT_TAU_MIN, AT_TAU_MAX, GUARDED = range(4)
"""Codes of `Solution.status`: solved inside the range, clamped at an end, held at tau_min by the guard."""


class TemperatureSettings(BaseModel):
    """How the temperature of a token is chosen: the keys of `[sft.teacher]` that Eq. 7 and 8 read."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tau_mode: Literal["adaptive", "fixed"] = "adaptive"
    """`adaptive`: temperature per token from its entropy (Eq. 8); `fixed`: `tau_fixed` for all (ablation)."""
    tau_fixed: float = Field(1.3, gt=0)
    """Temperature of the fixed ablation."""
    h_pivot: float = 1.2
    """Entropy in nats at which the increment is half of `delta_max` (Eq. 7)."""
    gamma: float = Field(2.0, gt=0)
    """Steepness of the increment, per nat (Eq. 7)."""
    delta_max: float = Field(0.5, ge=0)
    """Largest entropy increment in nats (Eq. 7)."""
    tau_min: float = Field(1.1, gt=0)
    """Lowest temperature (Section 5)."""
    tau_max: float = Field(1.5, gt=0)
    """Highest temperature (Section 5)."""
    topk: int = Field(512, ge=2)
    """Largest logits over which the search takes the entropy (Appendix D)."""
    low_entropy_guard: float | None = Field(0.03, ge=0)
    """Tokens whose full-vocabulary entropy in nats is at or below this get `tau_min` (the authors' code). None: no
    guard (the paper's text)."""
    search: Literal["newton", "bisect"] = "newton"
    """How Eq. 8 is solved; both find the same temperature (our choice)."""
    iters: int = Field(20, ge=1)
    """Halvings of the bisection (the authors' code)."""
    clamp: Literal["end", "target"] = "end"
    """A target entropy out of reach: `end` takes the end of the temperature range; `target` moves the target to the
    entropy at that end and searches for it, which stops half an interval before the end (D3)."""
    search_dtype: Literal["float32", "logits"] = "float32"
    """Precision of z / tau and of the temperatures in the bisection: float32, or that of the logits, as under the
    authors' autocast (D8). Log-softmax and entropies are float32 in both."""


@dataclass(frozen=True)
class Solution:
    """Temperatures of N tokens.

    Attributes:
        tau: [N].
        entropy: [N] nats, top-k at temperature 1.
        target: [N] nats, entropy + increment.
        status: [N] int8: FREE, AT_TAU_MIN, AT_TAU_MAX or GUARDED.
    """

    tau: Tensor
    entropy: Tensor
    target: Tensor
    status: Tensor


def increment(entropy: Tensor, *, h_pivot: float, gamma: float, delta_max: float) -> Tensor:
    """Entropy to add, nats (Eq. 7): delta_max * sigmoid(gamma * (H - h_pivot))."""
    return delta_max * (gamma * (entropy - h_pivot)).sigmoid()


def solve_logits(logits: Tensor, settings: TemperatureSettings) -> Solution:
    """Temperatures of full teacher logits [N, V] of any float dtype, upcast before anything else."""
    return solve(top_k_logits(logits.float(), settings.topk), settings, entropy(logits), logits.dtype)


def solve(
    top: Tensor,
    settings: TemperatureSettings,
    full_entropy: Tensor | None = None,
    logits_dtype: dtype | None = None,
) -> Solution:
    """Temperature whose entropy is the entropy at 1 plus the increment, within [tau_min, tau_max] (Eq. 8).

    All tokens are searched together; no shape depends on a value.

    Args:
        top: [N, K] float32, the K = `settings.topk` largest logits of each token in any order.
        settings: see `TemperatureSettings`; `tau_mode` "fixed" skips search and guard.
        full_entropy: [N] nats, over the full vocabulary at temperature 1, for `low_entropy_guard`. Where it is above
            the guard, any number above the guard will do.
        logits_dtype: what the logits were before they were upcast, for `search_dtype` "logits", whose status is that
            of the float32 search.
    """
    start = top_k_entropy(top, settings.topk)
    target = start + increment(start, h_pivot=settings.h_pivot, gamma=settings.gamma, delta_max=settings.delta_max)
    if settings.tau_mode == "fixed":
        return Solution(start.new_full(start.shape, settings.tau_fixed), start, target, _status(start, FREE))

    coldest, warmest = (top_k_entropy(top, settings.topk, tau) for tau in (settings.tau_min, settings.tau_max))
    hot, free = (target > coldest) & (target >= warmest), (target > coldest) & (target < warmest)
    x = (top - top.amax(-1, keepdim=True)).clamp(min=LOGIT_FLOOR)
    if settings.search == "bisect":
        found = _bisect(x, target, settings)
    else:
        found = _newton(x, target, coldest, warmest, settings)

    short = _last_half(settings)
    tau = start.new_full(start.shape, settings.tau_min + short).masked_fill(hot, settings.tau_max - short)
    tau = found.where(free, tau)
    status = _status(start, AT_TAU_MIN).masked_fill(hot, AT_TAU_MAX).masked_fill(free, FREE)
    if settings.low_entropy_guard is not None:
        assert full_entropy is not None
        guarded = full_entropy <= settings.low_entropy_guard
        tau, status = tau.masked_fill(guarded, settings.tau_min), status.masked_fill(guarded, GUARDED)

    if settings.search_dtype == "logits" and logits_dtype is not None:
        rounded = _bisect_under_autocast(top, settings, logits_dtype)
        tau = tau.to(logits_dtype).to(tau.dtype).where(status == GUARDED, rounded)
    return Solution(tau, start, target, status)


def _last_half(settings: TemperatureSettings) -> float:
    """How far from an end the bisection of a clamped target stops; 0 where clamped tokens take the end itself."""
    if settings.clamp == "end":
        return 0.0
    return (settings.tau_max - settings.tau_min) / 2 ** (settings.iters + 1)


def _status(like: Tensor, code: int) -> Tensor:
    return like.new_full(like.shape, code).char()


def _entropy_and_slope(x: Tensor, beta: Tensor | float) -> tuple[Tensor, Tensor]:
    """H [N] at inverse temperature beta of x [N, K] (largest 0), and dH/dbeta = -beta Var[x]."""
    column = beta if isinstance(beta, (int, float)) else beta.unsqueeze(-1)
    mass = (x * column).exp_()
    total = mass.sum(-1)
    mass *= x
    mean = mass.sum(-1) / total
    mass *= x
    variance = (mass.sum(-1) / total - mean * mean).clamp_(min=0.0)
    return total.log() - beta * mean, -beta * variance


def _bisect(x: Tensor, target: Tensor, settings: TemperatureSettings) -> Tensor:
    """Halve [tau_min, tau_max] `iters` times; the midpoint of what is left (Appendix D, Figure 6)."""
    low = target.new_full(target.shape, settings.tau_min)
    high = target.new_full(target.shape, settings.tau_max)
    for _ in range(settings.iters):
        middle = (low + high) / 2
        too_cold = _entropy_and_slope(x, 1.0 / middle)[0] < target
        low, high = middle.where(too_cold, low), high.where(too_cold, middle)
    return (low + high) / 2


def _bisect_under_autocast(top: Tensor, settings: TemperatureSettings, logits_dtype: dtype) -> Tensor:
    """The bisection as the authors' code runs it under autocast [N], float32: only z / tau and tau are rounded (D8)."""

    def rounded(value: Tensor) -> Tensor:
        return value.to(logits_dtype).float()

    def entropy_at(tau: Tensor) -> Tensor:
        return entropy(rounded(top / tau.unsqueeze(-1)))

    ones = top.new_ones(top.shape[:1])
    start = entropy_at(ones)
    target = start + increment(start, h_pivot=settings.h_pivot, gamma=settings.gamma, delta_max=settings.delta_max)
    low, high = rounded(ones * settings.tau_min), rounded(ones * settings.tau_max)
    high = low.where(target <= entropy_at(low), high)
    low = high.where(target >= entropy_at(high), low)
    for _ in range(settings.iters):
        middle = rounded((low + high) / 2)
        too_cold = entropy_at(middle) < target
        low, high = middle.where(too_cold, low), high.where(too_cold, middle)
    return rounded((low + high) / 2)


def _newton(
    x: Tensor, target: Tensor, coldest: Tensor, warmest: Tensor, settings: TemperatureSettings, steps: int = 10
) -> Tensor:
    """Safeguarded Newton steps on ln H = ln target in beta = 1 / tau, from the straight line between the two ends.

    The logarithm, because the entropy of a sure token falls like exp(-gap * beta). Without meaning for a target that
    is not between the ends.

    Args:
        coldest: [N], H at `tau_min`; `warmest`: at `tau_max`.
        steps: three reach float32 rounding within [1.1, 1.5], eight within [0.5, 4].
    """
    ends = 1.0 / settings.tau_max, 1.0 / settings.tau_min
    low, high = (target.new_full(target.shape, end) for end in ends)
    share = (target / warmest).log() / (coldest / warmest).log()
    beta = low + share * (high - low)
    for _ in range(steps):
        value, slope = _entropy_and_slope(x, beta)
        too_warm = value >= target
        low, high = beta.where(too_warm, low), high.where(too_warm, beta)
        beta = beta - (value / target).log() * value / slope
        # `>=` and `<=`: near the root rounding lands on an end of the bracket, which must not be thrown back.
        beta = beta.where((beta >= low) & (beta <= high), (low + high) / 2)
    return 1.0 / beta
