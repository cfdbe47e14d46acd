"""The engine beside a trainer: opened with the precision of its products, given its weights, compared with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from curiosft_cli.engine.base import LogprobKind, RolloutEngine
    from curiosft_cli.engine.open_engine import EngineKind
    from curiosft_cli.run.device import Dtype
    from curiosft_cli.run.sections import Config
    from curiosft_cli.train.encode import Row
    from curiosft_cli.train.loop import Loop


class EngineSettings(Protocol):
    """What the `sft` and `rl` sections say of their engine."""

    @property
    def engine(self) -> EngineKind: ...
    @property
    def kv_cache_gib(self) -> float: ...
    @property
    def gpu_memory_utilization(self) -> float: ...


def open_engine_beside(
    config: Config, settings: EngineSettings, path: str, context: int, dtype: Dtype, logprobs: LogprobKind = "raw"
) -> RolloutEngine:
    """The engine of this rank, with the model of `path`, a context of `context` tokens and products in `dtype`."""
    from curiosft_cli.engine.open_engine import open_engine
    from curiosft_cli.stages.engine_spec import engine_spec

    spec = engine_spec(config, path, context, settings, dtype=dtype, logprobs=logprobs)
    return open_engine(settings.engine, spec)


def hand_over(
    engine: RolloutEngine, loop: Loop, probe: Row, step: int, *, every: int = 1, tolerance: float | None = None
) -> None:
    """Give the engine the new weights; the first time and at multiples of `every`, compare log-probabilities.

    Args:
        engine: of this rank.
        loop: whose weights are given; adapters arrive merged.
        probe: what both sides score.
        step: version of the weights.
        every: steps between comparisons.
        tolerance: mean difference in nats; none is what rounding explains.

    Raises:
        CurioError: exit code 4 when the engine does not answer as the trainer does.
    """
    from curiosft_cli.engine.weight_handover import HANDOVER_TOLERANCE, FullState, check_handover
    from curiosft_cli.train.lora import plain_state

    engine.load_weights(step, plain_state(loop.model, FullState(loop.model)))
    loop.accelerator.wait_for_everyone()
    if step % every and not loop.first_handover:
        return
    loop.first_handover = False
    probe = replace(probe, response_ids=probe.response_ids[:-1] or probe.response_ids)  # engines want room for one more
    with loop.evaluating():
        trainer = loop.student_module.scored(loop.single_pack(probe)).logp.tolist()
    scored = engine.score([*probe.prompt_ids, *probe.response_ids])[-len(probe.response_ids) :]
    check_handover(scored, trainer, tolerance or HANDOVER_TOLERANCE[loop.dtype_name])
