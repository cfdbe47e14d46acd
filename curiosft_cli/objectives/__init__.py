"""The objectives by name. Adding one is a function, a line here, and a golden test."""

from curiosft_cli.objectives import baselines, groups, hybrid, newer
from curiosft_cli.objectives.curio import curio, curio_distribution
from curiosft_cli.objectives.groups import RlMethod
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
    "entropy_top": Objective(
        baselines.entropy_top,
        frozenset({"entropy", "selected"}),
        baselines.entropy_top_terms,
        beside=(baselines.select_top,),
    ),
    "kl": Objective(baselines.kl, baselines.kl_needs),
    "gem": Objective(baselines.gem, frozenset({"logits"})),
    "dft": Objective(baselines.dft),
    "psft": Objective(baselines.psft, frozenset({"old_logp"}), beside=(baselines.old_policy_steps,)),
    "curio": Objective(curio, frozenset({"teacher_logp"})),
    "curio_distribution": Objective(curio_distribution, frozenset({"logits", "ref_logits", "teacher_tau"})),
    "eaft": Objective(newer.eaft, frozenset({"logits"})),
    "asft": Objective(newer.asft, frozenset({"logits", "ref_logits"})),
    "sed_sft": Objective(newer.sed_sft, frozenset({"logits"})),
    "deft": Objective(newer.deft, newer.deft_needs, beside=(newer.cayley_floor,)),
}

_HYBRID = (hybrid.hybrid_needs, hybrid.hybrid_terms, (hybrid.script_split,))
_PREFIX = (hybrid.hybrid_needs, hybrid.prefix_terms, (hybrid.script_split,))
_HPT = (hybrid.hybrid_needs, hybrid.hpt_terms, (hybrid.script_split,))

RL_METHODS: dict[str, RlMethod] = {
    "grpo": RlMethod(Objective(grpo, frozenset({"old_logp", "advantage"})), use_std=True),
    "curio_official": RlMethod(Objective(curio_official, frozenset({"old_logp", "advantage"})), use_std=True),
    "luffy": RlMethod(Objective(hybrid.luffy, *_HYBRID), groups.expert_last),
    "rl_plus": RlMethod(Objective(hybrid.rl_plus, *_HYBRID), groups.expert_last),
    "prefix_rft": RlMethod(
        Objective(hybrid.prefix_rft, *_PREFIX), groups.prefix_last, groups.prefix_apart, keep=groups.keep_prefix
    ),
    "hpt": RlMethod(Objective(hybrid.hpt, *_HPT), groups.expert_beside, groups.gated),
}

RL_OBJECTIVES: dict[str, Objective] = {name: method.objective for name, method in RL_METHODS.items()}

__all__ = [
    "RL_METHODS",
    "RL_OBJECTIVES",
    "SFT_OBJECTIVES",
    "BoundObjective",
    "Objective",
    "RlMethod",
    "TokenLoss",
    "TokenRows",
    "objective_parameters",
]
