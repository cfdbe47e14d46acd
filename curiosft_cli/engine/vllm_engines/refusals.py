"""What vLLM says when it does not start, as one line: the part that does not fit, and the setting to change."""

from __future__ import annotations

from dataclasses import dataclass

from curiosft_cli.run.errors import CurioError


@dataclass(frozen=True)
class Refusal:
    """One kind of refusal.

    Attributes:
        said: words of vLLM's or torch's own message.
        what: the part that does not fit.
        fix: the setting to change, which has the same name in [rl] and [eval].
    """

    said: str
    what: str
    fix: str


REFUSALS = (
    Refusal(
        "larger than the available KV cache",
        "the key-value cache is too small for one sequence",
        "Raise kv_cache_gib (CPU) or gpu_memory_utilization (GPU), or lower max_completion_length or "
        "data.max_prompt_length.",
    ),
    Refusal(
        "No available memory for the cache blocks",
        "the weights and activations leave no memory for the key-value cache",
        "Raise gpu_memory_utilization, or take a smaller model.",
    ),
    Refusal(
        "allocation is less than requested memory for kv",
        "the key-value cache does not fit in memory",
        "Lower kv_cache_gib, or free memory.",
    ),
    Refusal(
        "less than desired GPU memory utilization",
        "the engine's share of the GPU is not free",
        "Lower gpu_memory_utilization, or free the GPU's memory.",
    ),
    Refusal(
        "out of memory",
        "the engine's weights and activations do not fit in the GPU's memory",
        "Free the GPU's memory, or take a smaller model.",
    ),
    Refusal(
        "can't allocate memory",
        "the engine's weights and activations do not fit in memory",
        "Free memory, or take a smaller model.",
    ),
)


def explained(error: Exception) -> CurioError | None:
    """The line for an error of vLLM's start; none for one that is not about the settings or the memory."""
    said = " ".join(str(error).split())
    for refusal in REFUSALS:
        if refusal.said in said:
            return CurioError(f"{refusal.what} ({said})", refusal.fix)
    if isinstance(error, ValueError):  # a model it does not know, a context that is too long
        return CurioError(f"vLLM refuses these settings: {said}", "Change what it names.")
    return None
