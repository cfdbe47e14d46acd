"""Which engine samples: the only place that chooses between the implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from curiosft_cli.run.errors import CurioError

if TYPE_CHECKING:
    from curiosft_cli.engine.base import RolloutEngine
    from curiosft_cli.engine.spec import EngineSpec

EngineKind = Literal["auto", "vllm", "transformers"]


def open_engine(kind: EngineKind, spec: EngineSpec) -> RolloutEngine:
    """Open vLLM, or transformers where vLLM is not installed ("auto") or not wanted.

    Raises:
        CurioError: the engine cannot open the model; exit code 3 when `kind` is "vllm" and vLLM is not installed.
    """
    from curiosft_cli.engine.vllm_engines.embedded import VllmEngine, vllm_installed

    chosen: type[RolloutEngine] = VllmEngine
    if kind == "transformers" or (kind == "auto" and not vllm_installed()):
        from curiosft_cli.engine.transformers_engine import TransformersEngine

        chosen = TransformersEngine
    try:
        return chosen(spec)
    except CurioError:
        raise
    except Exception as error:  # the libraries raise many kinds for a model that they cannot open
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CurioError(
            f"{chosen.__name__} cannot open {spec.model}: {reason}",
            "Lines above may say more. `curiosft model check` looks at the model.",
        ) from error
