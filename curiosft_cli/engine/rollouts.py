"""What one RL step sampled: graded completions, what to log of them, and the file that keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curiosft_cli.engine.base import Completion
from curiosft_cli.run.files import JsonLines, compress_jsonl
from curiosft_cli.tasks.records import Grade, Problem


@dataclass(frozen=True)
class Prompt:
    """A problem and its prompt's token ids."""

    problem: Problem
    ids: list[int]


@dataclass(frozen=True)
class Rollout:
    """One graded completion of prompt number `group` of the step."""

    group: int
    sample: int
    prompt: Prompt
    completion: Completion
    grade: Grade


def describe(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Rewards, the reasons behind them, and lengths in tokens."""
    graded = [rollout.grade for rollout in rollouts if rollout.grade.strict is not None]
    reasons = Counter(rollout.grade.reason for rollout in rollouts)
    lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
    cut = sum(rollout.completion.finish_reason == "length" for rollout in rollouts)
    return {
        "reward/mean": sum(grade.strict or 0.0 for grade in graded) / max(1, len(graded)),
        "reward/answer": sum(grade.answer or 0.0 for grade in graded) / max(1, len(graded)),
        "reward/format": sum(grade.format_error is None for grade in graded) / max(1, len(graded)),
        **{f"reward/{reason}": count / len(rollouts) for reason, count in sorted(reasons.items())},
        "completions/mean_length": sum(lengths) / len(lengths),
        "completions/clipped_ratio": cut / len(rollouts),
    }


def save_rollouts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """One compressed file a step: token ids, log-probabilities, reward, reason, weight version."""
    path.unlink(missing_ok=True)
    with JsonLines(path) as file:
        for rollout in rollouts:
            file.append(
                {
                    "id": rollout.prompt.problem.id,
                    "sample": rollout.sample,
                    "token_ids": list(rollout.completion.token_ids),
                    "logprobs": list(rollout.completion.logprobs),
                    "finish_reason": rollout.completion.finish_reason,
                    "weights_version": rollout.completion.weights_version,
                    "reward": rollout.grade.strict,
                    "reason": rollout.grade.reason,
                }
            )
    compress_jsonl(path)
