"""RL with expert tokens in the batch: LUFFY, RL-PLUS, Prefix-RFT (experimental) and HPT.

`extra["expert"]` [N] bool marks tokens that the expert wrote. The terms of each loss have the balance that they have in
the method's published script (`ScriptSplit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from curiosft_cli.objectives.grpo import clip_stats, clipped_surrogate, ratio_of
from curiosft_cli.objectives.tokens import Divisor, TokenLoss, TokenRows

if TYPE_CHECKING:
    from torch import Tensor

    from curiosft_cli.objectives.reduction import Totals


@dataclass(frozen=True)
class ScriptSplit:
    """The expected split of an update in the published scripts, from the totals of the update alone.

    The scripts add up micro-batches of at most `token_limit` tokens on each of `gpus` GPUs and average the GPUs. The
    policy term is a plain sum over tokens, so the cut does not matter to it. The entropy bonus is a mean over each
    micro-batch, so it counts K times. The supervised term counts once for each micro-batch with an expert's row: K_e.
    """

    gpus: int
    token_limit: int

    def micro_batches(self, totals: Totals, rounding: float = 0.75) -> float:
        """K: micro-batches of a GPU.

        Args:
            rounding: rounding up adds 1/2 on average, the fullest of 8 GPUs another 1/4.
        """
        return max(1.0, totals.all_tokens / (self.gpus * self.token_limit) + rounding)

    def with_expert(self, totals: Totals) -> float:
        """K_e: those of them that hold at least one row of the expert."""
        count = self.micro_batches(totals)
        return count * (1.0 - (1.0 - 1.0 / count) ** (totals.mask_sequences["expert"] / self.gpus))

    def policy(self, totals: Totals) -> float:
        """Weight of a token in the policy term: 1 / (gpus L)."""
        return 1.0 / (self.gpus * totals.max_length)

    def bonus(self, totals: Totals) -> float:
        """Weight of a token in the entropy bonus: K times the mean over all tokens."""
        return self.micro_batches(totals) / max(totals.tokens, 1)

    def supervised(self, totals: Totals) -> float:
        """Weight of an expert's token in the supervised term: K_e times the mean over expert tokens."""
        return self.with_expert(totals) / max(totals.masks["expert"], 1)

    def shared_policy(self, totals: Totals) -> float:
        """`policy`, where the script multiplies each micro-batch by its share of the rows: 1 / K of it."""
        return self.policy(totals) / self.micro_batches(totals)


def script_split(
    *, script_gpus: Annotated[int, Field(ge=1)] | None = 8, script_tokens: Annotated[int, Field(ge=1)] = 32768
) -> ScriptSplit | None:
    """How the published script cuts an update.

    Args:
        script_gpus: GPUs of the script. None: the textbook reading, with `rl.reduction` for the policy term and one
            mean over the update for each other term.
        script_tokens: token limit of a micro-batch on one GPU, prompts included.
    """
    return None if script_gpus is None else ScriptSplit(script_gpus, script_tokens)


def _split_of(params: Mapping[str, Any]) -> ScriptSplit | None:
    return script_split(script_gpus=params["script_gpus"], script_tokens=params["script_tokens"])


def hybrid_needs(params: Mapping[str, Any]) -> frozenset[str]:
    bonus = any(params.get(name) for name in ("entropy_coef", "entropy_coef_prefix"))
    return frozenset({"old_logp", "advantage", "expert"} | ({"entropy"} if bonus else set()))


def hybrid_terms(params: Mapping[str, Any]) -> tuple[Divisor, ...]:
    """Policy term and entropy bonus (LUFFY, RL-PLUS)."""
    split = _split_of(params)
    terms = ("reduction", "tokens") if split is None else (split.policy, split.bonus)
    return terms if params["entropy_coef"] else terms[:1]


def prefix_terms(params: Mapping[str, Any]) -> tuple[Divisor, ...]:
    """LUFFY's balance, both terms divided by K (our choice: the authors of Prefix-RFT publish no configuration)."""
    split = _split_of(params)
    bonus: Divisor = "tokens" if params["entropy_coef_prefix"] else sampled_mean
    policy: Divisor = "reduction" if split is None else split.shared_policy
    return (policy, bonus) if params["entropy_coef"] or params["entropy_coef_prefix"] else (policy,)


def hpt_terms(params: Mapping[str, Any]) -> tuple[Divisor, ...]:
    """Policy term, supervised term and entropy bonus."""
    split = _split_of(params)
    terms: tuple[Divisor, ...] = ("reduction", "expert", "tokens")
    if split is not None:
        terms = (split.policy, split.supervised, split.bonus)
    return terms if params["entropy_coef"] else terms[:2]


def sampled_mean(totals: Totals) -> float:
    """Weight of a token in a mean over the tokens that the policy wrote."""
    return 1.0 / max(totals.tokens - totals.masks["expert"], 1)


def _with_bonus(rows: TokenRows, loss: Tensor, coef: Tensor | float, stats: Mapping[str, Tensor]) -> TokenLoss:
    if rows.entropy is None:
        return TokenLoss(loss, stats)
    return TokenLoss((loss, -coef * rows.entropy), stats)


def _on_policy(ratio: Tensor, advantage: Tensor, clip_low: float | None, clip_high: float | None) -> Tensor:
    """-A r, or the clipped surrogate where both widths are given."""
    if clip_low is None or clip_high is None:
        return -advantage * ratio
    return clipped_surrogate(ratio, advantage, clip_low, clip_high)


def luffy(
    rows: TokenRows,
    *,
    shaping_gamma: float | None = 0.1,
    clip_low: float | None = None,
    clip_high: float | None = None,
    entropy_coef: float = 0.001,
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """LUFFY: -A r on sampled tokens, -A p / (p + gamma) on expert tokens.

    `extra`: old_logp, advantage, expert.

    Args:
        shaping_gamma: gamma of the policy shaping; none uses the probability itself.
        clip_low: width of the clip below 1 on sampled tokens; none (the published script) does not clip.
        clip_high: width of the clip above 1 on sampled tokens; none does not clip.
        entropy_coef: weight of the entropy bonus over all tokens.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    advantage, expert = rows.extra["advantage"], rows.extra["expert"].bool()
    ratio = ratio_of(rows.logp, rows.extra["old_logp"], log_ratio_clamp)
    p = rows.logp.exp()
    shaped = p if shaping_gamma is None else p / (p + shaping_gamma)
    loss = (-advantage * shaped).where(expert, _on_policy(ratio, advantage, clip_low, clip_high))
    return _with_bonus(rows, loss, entropy_coef, {"ratio": shaped.detach().where(expert, ratio.detach())})


def rl_plus(
    rows: TokenRows,
    *,
    exploration_gamma: float = 0.5,
    behaviour_weight: float = 0.5,
    clip_low: float | None = None,
    clip_high: float | None = None,
    entropy_coef: float = 0.001,
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """RL-PLUS: as LUFFY on sampled tokens; -A (1 - sg(p))^gamma rho on expert tokens.

    rho = 2 p / (q + w (q + 1)) with q the old policy's probability. `extra`: old_logp, advantage, expert.

    Args:
        exploration_gamma: exponent of the exploration advantage, larger for tokens the policy finds unlikely.
        behaviour_weight: w, the weight of the old policy and 1 in the estimate of the expert's probability.
        clip_low: width of the clip below 1 on sampled tokens; none (the published script) does not clip.
        clip_high: width of the clip above 1 on sampled tokens; none does not clip.
        entropy_coef: weight of the entropy bonus over all tokens.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    advantage, expert = rows.extra["advantage"], rows.extra["expert"].bool()
    old_logp = rows.extra["old_logp"]
    ratio = ratio_of(rows.logp, old_logp, log_ratio_clamp)
    p, q = rows.logp.exp(), old_logp.exp()
    rho = 2.0 * p / (q + behaviour_weight * (q + 1.0))
    surprise = (1.0 - p.detach()).clamp(min=0.0) ** exploration_gamma  # p may round above 1
    loss = (-advantage * surprise * rho).where(expert, _on_policy(ratio, advantage, clip_low, clip_high))
    return _with_bonus(rows, loss, entropy_coef, {"ratio": rho.detach().where(expert, ratio.detach())})


def prefix_rft(
    rows: TokenRows,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
    clip_prefix_tokens: bool = True,
    entropy_coef: float = 0.001,
    entropy_coef_prefix: float = 0.0,
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """Prefix-RFT (experimental): PPO's clip on every token, expert prefix included.

    `extra`: old_logp, advantage, expert.

    Args:
        clip_low: width of the clip below 1.
        clip_high: width of the clip above 1.
        dual_clip: bound of the ratio where the advantage is negative; none has no bound.
        clip_prefix_tokens: false leaves prefix tokens at -A r; which one the authors ran is unknown.
        entropy_coef: weight of the entropy bonus on sampled tokens.
        entropy_coef_prefix: the same on prefix tokens.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    advantage, prefix = rows.extra["advantage"], rows.extra["expert"].bool()
    ratio = ratio_of(rows.logp, rows.extra["old_logp"], log_ratio_clamp)
    loss = clipped_surrogate(ratio, advantage, clip_low, clip_high, dual_clip)
    if not clip_prefix_tokens:
        loss = (-advantage * ratio).where(prefix, loss)
    coef = ratio.new_full(ratio.shape, entropy_coef).masked_fill(prefix, entropy_coef_prefix)
    return _with_bonus(rows, loss, coef, clip_stats(ratio, advantage, clip_low, clip_high))


def hpt(
    rows: TokenRows,
    *,
    sft_loss_coef: float = 1.0,
    entropy_coef: float = 0.001,
    log_ratio_clamp: float = 20.0,
) -> TokenLoss:
    """HPT: SFT on expert rows, -A r on sampled rows, each with its own divisor.

    `extra`: old_logp, advantage, expert.

    Args:
        sft_loss_coef: weight of the SFT term (0.3 for their 1.5B model).
        entropy_coef: weight of the entropy bonus over all tokens.
        log_ratio_clamp: bound of the log-ratio, nats.
    """
    expert = rows.extra["expert"].bool()
    ratio = ratio_of(rows.logp, rows.extra["old_logp"], log_ratio_clamp)
    policy = (-rows.extra["advantage"] * ratio).masked_fill(expert, 0.0)
    supervised = (-sft_loss_coef * rows.logp).masked_fill(~expert, 0.0)
    bonus = () if rows.entropy is None else (-entropy_coef * rows.entropy,)
    return TokenLoss((policy, supervised, *bonus), {"ratio": ratio.detach()})
