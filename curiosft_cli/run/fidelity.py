"""What `run.fidelity` changes: the paper's text and the authors' code where they differ from our default.

Numbers D1..D16 are the rows of docs/deviations.md. A difference that is not listed here is the same in all
three readings, or the source is silent and the default stays.
"""

from __future__ import annotations

from typing import Any

FIDELITY: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        # D2, D3, D4: the listing of Appendix D clamps the target, bisects 15 times, and has no low-entropy guard.
        "sft": {"teacher": {"search": "bisect", "iters": 15, "clamp": "target", "low_entropy_guard": "none"}},
    },
    "official": {
        # D2, D7, D8: 20 halvings in the logits' precision; each micro-batch's own token mean, averaged.
        "sft": {
            "teacher": {"search": "bisect", "iters": 20, "search_dtype": "logits"},
            "reduction": "micro_token_mean",
        },
        # D9, D10, D11: the code's RL loss, 32 prompts per update, untruncated sampling.
        "rl": {"objective": "curio_official", "mini_batch_prompts": 32, "top_p": 1.0},
        # D12: validation never sets top_p; the code grades the whole response with two graders.
        "eval": {"top_p": 1.0, "grader": "official"},
    },
}
