"""Seeds of single completions."""

from __future__ import annotations

import hashlib


def sample_seed(run_seed: int, task: str, question: str, sample: int) -> int:
    """First 63 bits of SHA-256: equal everywhere, and neighbouring samples share no random stream.

    Args:
        run_seed: `run.seed`.
        task: benchmark or training step.
        question: id of the question.
        sample: number of the completion.
    """
    digest = hashlib.sha256(f"{run_seed}|{task}|{question}|{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
