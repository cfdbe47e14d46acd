"""Checks of prompts and seeds before an engine starts on them: a bad prompt refuses the whole batch."""

from __future__ import annotations

import random
from collections.abc import Sequence

from curiosft_cli.run.errors import CurioError


def check_prompts(prompts: Sequence[Sequence[int]], seeds: Sequence[int] | None, max_model_len: int) -> None:
    """Refuse empty prompts, and prompts that leave no token of the context for the completion.

    Args:
        prompts: token ids.
        seeds: None, or one per prompt.
        max_model_len: tokens of prompt and completion together.

    Raises:
        CurioError: the first such prompt, by its index.
        ValueError: `seeds` has another length than `prompts`.
    """
    if seeds is not None and len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= max_model_len - 1:
            raise CurioError(
                f"prompt {index} has {len(prompt)} tokens, legal are 1 to {max_model_len - 1} "
                f"in a context of {max_model_len}",
                "Leave it out, or raise the context length",
            )


def fill_seeds(seeds: Sequence[int] | None, count: int, source: random.Random) -> Sequence[int]:
    """Return the caller's seeds, or draw `count` of 63 bits without the global random state."""
    return seeds if seeds is not None else [source.getrandbits(63) for _ in range(count)]
