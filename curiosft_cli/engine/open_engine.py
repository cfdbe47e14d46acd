"""Which engine samples: the only place that chooses between the implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from curiosft_cli.engine.base import RolloutEngine
    from curiosft_cli.engine.spec import EngineSpec

EngineKind = Literal["auto", "vllm", "transformers"]


def open_engine(kind: EngineKind, spec: EngineSpec) -> RolloutEngine:
    """Open vLLM, or transformers where vLLM is not installed ("auto") or not wanted.

    Raises:
        CurioError: exit code 3 when `kind` is "vllm" and vLLM is not installed.
    """
    from curiosft_cli.engine.vllm_engines.embedded import VllmEngine, vllm_installed

    if kind == "vllm" or (kind == "auto" and vllm_installed()):
        return VllmEngine(spec)
    from curiosft_cli.engine.transformers_engine import TransformersEngine

    return TransformersEngine(spec)
