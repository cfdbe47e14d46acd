"""The objectives by name. Adding one is a function, a line here, and a golden test."""

from curiosft_cli.objectives import baselines, hybrid
from curiosft_cli.objectives.curio import curio
from curiosft_cli.objectives.grpo import curio_official, grpo
from curiosft_cli.objectives.tokens import (
    BoundObjective,
    Objective,
    TokenLoss,
    TokenRows,
    objective_parameters,
)

SFT_OBJECTIVES: dict[str, Objective] = {
    "sft": Objective(baselines.sft),
    "entropy": Objective(baselines.entropy, frozenset({"entropy"})),
    "entropy_top": Objective(baselines.entropy_top, frozenset({"entropy", "selected"}), baselines.entropy_top_terms),
    "kl": Objective(baselines.kl, baselines.kl_needs),
    "gem": Objective(baselines.gem, frozenset({"logits"})),
    "dft": Objective(baselines.dft),
    "psft": Objective(baselines.psft, frozenset({"old_logp"})),
    "curio": Objective(curio, frozenset({"teacher_logp"})),
}

RL_OBJECTIVES: dict[str, Objective] = {
    "grpo": Objective(grpo, frozenset({"old_logp", "advantage"})),
    "curio_official": Objective(curio_official, frozenset({"old_logp", "advantage"})),
    "luffy": Objective(hybrid.luffy, hybrid.hybrid_needs, hybrid.hybrid_terms),
    "rl_plus": Objective(hybrid.rl_plus, hybrid.hybrid_needs, hybrid.hybrid_terms),
    "prefix_rft": Objective(hybrid.prefix_rft, hybrid.hybrid_needs, hybrid.hybrid_terms),
    "hpt": Objective(hybrid.hpt, hybrid.hybrid_needs, hybrid.hpt_terms),
}

__all__ = [
    "RL_OBJECTIVES",
    "SFT_OBJECTIVES",
    "BoundObjective",
    "Objective",
    "TokenLoss",
    "TokenRows",
    "objective_parameters",
]
