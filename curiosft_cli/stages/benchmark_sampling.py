"""The completions of a benchmark, drawn the same way by an evaluation and between two steps of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from curiosft_cli.engine.base import Completion, Sampling, sample_seed

if TYPE_CHECKING:
    from curiosft_cli.engine.base import TokenSampler
    from curiosft_cli.evaluation.tasks import BenchmarkTask
    from curiosft_cli.run.sections import Eval


def evaluation_sampling(settings: Eval, stop_token_ids: tuple[int, ...] = ()) -> Sampling:
    """How `[eval]` samples."""
    length = settings.max_completion_length
    return Sampling(settings.temperature, settings.top_p, length, stop_token_ids, with_logprobs=False)


def seeds_of(task: BenchmarkTask, wanted: Sequence[tuple[int, int]], run_seed: int) -> list[int]:
    """A seed for each (index of the question, number of the sample): of the run, the benchmark and these two alone."""
    return [sample_seed(run_seed, task.name, task.problems[question].id, number) for question, number in wanted]


def draw(
    engine: TokenSampler,
    task: BenchmarkTask,
    prompts: Sequence[Sequence[int]],
    wanted: Sequence[tuple[int, int]],
    sampling: Sampling,
    run_seed: int,
) -> Iterator[tuple[int, Completion]]:
    """Yield (index into `wanted`, completion) in finishing order.

    Args:
        prompts: token ids, one per question.
        wanted: (index of the question, number of the sample).
    """
    if wanted:
        chosen = [prompts[question] for question, _ in wanted]
        yield from engine.stream(chosen, sampling, seeds_of(task, wanted, run_seed))
