"""What every engine checks before it starts: a bad prompt is refused whole, not found out half-way."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from curiosft_cli.run.errors import CurioError, nearest


def check_prompts(
    prompts: Sequence[Sequence[int]], seeds: Sequence[int] | None, max_model_len: int, room: int = 1
) -> None:
    """Refuse empty prompts, and prompts that leave less than `room` tokens of the context for the completion.

    Args:
        prompts: token ids.
        seeds: None, or one per prompt.
        max_model_len: tokens of prompt and completion together.
        room: completion tokens that must fit.

    Raises:
        CurioError: the first such prompt, by its index.
        ValueError: `seeds` has another length than `prompts`.
    """
    if seeds is not None and len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= max_model_len - room:
            raise CurioError(
                f"prompt {index} has {len(prompt)} tokens, legal are 1 to {max_model_len - room} "
                f"in a context of {max_model_len}",
                "Leave it out, or raise the context length",
            )


def fill_seeds(seeds: Sequence[int] | None, count: int, source: random.Random) -> Sequence[int]:
    """Return the caller's seeds, or draw `count` of 63 bits, so that no engine touches the global random state."""
    return seeds if seeds is not None else [source.getrandbits(63) for _ in range(count)]


def check_more(more: Mapping[str, Any], taken: Iterable[str], known: Sequence[str]) -> None:
    """Refuse further settings that vLLM does not have, or that are made here.

    Raises:
        CurioError: see above.
    """
    for name in more:
        if name in taken:
            raise CurioError(f"vLLM's setting {name} is not free", "It follows from other keys; leave it out.")
        if name not in known:
            raise CurioError(f"vLLM has no setting {name}", nearest(name, known))
