"""The engine beside a trainer: opened with the precision of its products, given its weights, compared with it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curiosft_cli.engine.base import LogprobKind, RolloutEngine
    from curiosft_cli.run.device import Dtype
    from curiosft_cli.run.sections import Config, Training
    from curiosft_cli.train.encode import Row
    from curiosft_cli.train.loop import Loop


def open_engine_beside(
    config: Config, settings: Training, path: str, context: int, dtype: Dtype, logprobs: LogprobKind = "raw"
) -> RolloutEngine:
    """The engine of this rank, with the model of `path`, a context of `context` tokens and products in `dtype`."""
    from curiosft_cli.engine.open_engine import open_engine
    from curiosft_cli.stages.engine_spec import engine_spec

    spec = engine_spec(config, path, context, settings, dtype=dtype, logprobs=logprobs)
    return open_engine(settings.engine, spec)


@contextmanager
def asleep(engine: RolloutEngine) -> Generator[RolloutEngine]:
    """An engine that gives its memory to the trainer until a hand-over wakes it; closed at the end."""
    try:
        engine.sleep()
        yield engine
    finally:
        engine.close()


@dataclass
class HandOver:
    """Gives the engine the policy's weights, and compares the log-probabilities of both sides now and then.

    Attributes:
        engine: of this rank; asleep.
        loop: whose weights are given; adapters arrive merged.
        every: steps between comparisons. The first hand-over is always compared.
        tolerance: mean difference in nats; None is what rounding explains.
    """

    engine: RolloutEngine
    loop: Loop
    every: int = 1
    tolerance: float | None = None
    compared: bool = False

    def __call__(self, step: int, probe: Row) -> None:
        """Wake the engine with the weights after `step` steps.

        Args:
            step: version of the weights.
            probe: the tokens that both sides score.

        Raises:
            CurioError: exit code 4 when the engine does not answer as the trainer does.
        """
        from curiosft_cli.engine.weight_handover import HANDOVER_TOLERANCE, check_handover
        from curiosft_cli.train.shards import WholeWeights

        loop = self.loop
        self.engine.wake()
        self.engine.load_weights(step, WholeWeights(loop.model))
        loop.accelerator.wait_for_everyone()
        if step % self.every and self.compared:
            return
        self.compared = True
        # Engines score only what leaves space for one token more.
        probe = replace(probe, response_ids=probe.response_ids[:-1] or probe.response_ids)
        with loop.evaluating():
            trainer = loop.student_module.scored(loop.single_pack(probe)).logp.tolist()
        scored = self.engine.score([*probe.prompt_ids, *probe.response_ids])[-len(probe.response_ids) :]
        check_handover(scored, trainer, self.tolerance or HANDOVER_TOLERANCE[loop.dtype_name])
