"""vLLM's start-up errors as one line each: what does not fit, and the setting to change."""

from __future__ import annotations

from dataclasses import dataclass

from curiosft_cli.run.errors import CurioError


@dataclass(frozen=True)
class StartError:
    """One kind of error.

    Attributes:
        message: part of vLLM's or torch's own message.
        what: the part that does not fit.
        fix: the setting to change, which has the same name in [rl] and [eval].
    """

    message: str
    what: str
    fix: str


START_ERRORS = (
    StartError(
        "larger than the available KV cache",
        "the key-value cache is too small for one sequence",
        "Raise kv_cache_gib (CPU) or gpu_memory_utilization (GPU), or lower max_completion_length or "
        "data.max_prompt_length.",
    ),
    StartError(
        "No available memory for the cache blocks",
        "the weights and activations leave no memory for the key-value cache",
        "Raise gpu_memory_utilization, or take a smaller model.",
    ),
    StartError(
        "allocation is less than requested memory for kv",
        "the key-value cache does not fit in memory",
        "Lower kv_cache_gib, or free memory.",
    ),
    StartError(
        "less than desired GPU memory utilization",
        "the engine's share of the GPU is not free",
        "Lower gpu_memory_utilization, or free the GPU's memory.",
    ),
    StartError(
        "out of memory",
        "the engine's weights and activations do not fit in the GPU's memory",
        "Free the GPU's memory, or take a smaller model.",
    ),
    StartError(
        "can't allocate memory",
        "the engine's weights and activations do not fit in memory",
        "Free memory, or take a smaller model.",
    ),
)


def explained(error: Exception) -> CurioError | None:
    """The line for an error of vLLM's start; None where it is not about settings or memory."""
    message = " ".join(str(error).split())
    for known in START_ERRORS:
        if known.message in message:
            return CurioError(f"{known.what} ({message})", known.fix)
    if isinstance(error, ValueError):  # a model it does not know, a context that is too long
        return CurioError(f"vLLM refuses these settings: {message}", "Change what it names.")
    return None
