"""From the configuration to what an engine opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curiosft_cli.engine.spec import EngineSpec

if TYPE_CHECKING:
    from curiosft_cli.engine.base import LogprobKind
    from curiosft_cli.run.device import Dtype
    from curiosft_cli.run.sections import Config, Eval, Training


def engine_spec(
    config: Config,
    path: str,
    max_model_len: int,
    settings: Training | Eval | None = None,
    *,
    dtype: Dtype = "auto",
    logprobs: LogprobKind = "raw",
) -> EngineSpec:
    """The model of `path` as the trainer opens it too, for an engine.

    Args:
        config: of the run.
        path: a checkpoint folder or hub id.
        max_model_len: tokens of prompt and completion together.
        settings: the section with the engine's memory; None takes the engine's defaults.
        dtype: of the engine's products.
        logprobs: which log-probabilities come with the completions.
    """
    from curiosft_cli.run.sections import Eval
    from curiosft_cli.train.load import context_overrides

    memory = {}
    if settings is not None:
        memory = {
            "cpu_kv_cache_gib": settings.kv_cache_gib,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
        }
    return EngineSpec(
        path,
        max_model_len,
        dtype,
        config.run.seed,
        logprobs,
        config.model.revision,
        config.model.trust_remote_code,
        context_overrides(path, config.model),
        vllm=settings.vllm if isinstance(settings, Eval) else {},
        **memory,
    )
