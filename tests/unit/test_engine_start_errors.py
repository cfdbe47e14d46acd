"""An engine that does not start is one line, which names the part that overflowed and the setting to change."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from curiosft_cli.engine.vllm_engines.start_errors import START_ERRORS, explained
from curiosft_cli.run.errors import BAD_INPUT
from curiosft_cli.run.sections import Data, Eval, Rl

TOO_LONG = (
    "To serve at least one request with the model's max seq len (9216), (12.5 GiB KV cache is needed, which is larger "
    "than the available KV cache memory (1.0 GiB). Try increasing `gpu_memory_utilization`"
)


@pytest.mark.parametrize(
    ("error", "part", "setting"),
    [
        (ValueError(TOO_LONG), "cache is too small for one sequence", "Raise kv_cache_gib"),
        (ValueError("No available memory for the cache blocks. Try"), "leave no memory", "gpu_memory_utilization"),
        (
            ValueError("Free memory on device cuda:0 (3.1/79.1 GiB) is less than desired GPU memory utilization (0.6)"),
            "share of the GPU is not free",
            "Lower gpu_memory_utilization",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate\n2 GiB"), "weights and activations", "smaller model"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            "weights and activations do not fit",
            "Free memory",
        ),
        (ValueError("1 validation error\n  max_model_len is greater"), "vLLM refuses these settings", "what it names"),
    ],
)
def test_the_part_and_the_setting_are_named_in_one_line(error: Exception, part: str, setting: str) -> None:
    found = explained(error)
    assert found is not None and found.exit_code == BAD_INPUT
    assert part in found.what and setting in found.fix and "\n" not in str(found)
    assert " ".join(str(error).split()) in found.what, "vLLM's own figures stay"


def test_other_errors_keep_their_traceback() -> None:
    assert explained(RuntimeError("expected scalar type Float")) is None


def test_the_settings_named_exist() -> None:
    settings = {"kv_cache_gib", "gpu_memory_utilization", "max_completion_length"}
    assert settings <= set(Rl.model_fields) and settings <= set(Eval.model_fields)
    assert "max_prompt_length" in Data.model_fields


def test_the_installed_vllm_says_these_words() -> None:
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    files = ("worker/utils.py", "worker/cpu_worker.py", "core/kv_cache_utils.py")
    text = "".join((Path(spec.origin).parent / "v1" / file).read_text() for file in files)
    torchs_own = {"out of memory", "can't allocate memory"}
    absent = [r.message for r in START_ERRORS if r.message not in torchs_own and r.message not in text]
    assert absent == []
