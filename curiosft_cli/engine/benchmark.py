"""The completions of a benchmark, drawn the same way by an evaluation and between two steps of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from curiosft_cli.engine.base import Completion, Sampling
from curiosft_cli.tasks.seeds import sample_seed

if TYPE_CHECKING:
    from curiosft_cli.engine.base import Sampler
    from curiosft_cli.run.sections import Eval
    from curiosft_cli.tasks.evaluation import Asked


def evaluation_sampling(settings: Eval, stop_token_ids: tuple[int, ...]) -> Sampling:
    """How `[eval]` samples."""
    return Sampling(settings.temperature, settings.top_p, settings.max_completion_length, stop_token_ids)


def draw(
    engine: Sampler,
    asked: Asked,
    prompts: Sequence[Sequence[int]],
    wanted: Sequence[tuple[int, int]],
    sampling: Sampling,
    run_seed: int,
) -> Iterator[tuple[int, int, Completion]]:
    """Yield (index of the question, number of the sample, completion) in finishing order.

    A sample's seed depends on the run, the benchmark, the question and its number alone.

    Args:
        prompts: token ids, one per question.
        wanted: (index of the question, number of the sample).
    """
    if not wanted:
        return
    seeds = [sample_seed(run_seed, asked.name, asked.problems[question].id, number) for question, number in wanted]
    for index, completion in engine.stream([prompts[question] for question, _ in wanted], sampling, seeds):
        yield *wanted[index], completion
