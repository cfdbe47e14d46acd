"""The graded responses of one RL step: their metrics, and the file that keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.engine.base import Completion
from curiosft_cli.run.files import read_jsonl, write_compressed_jsonl


@dataclass(frozen=True)
class Prompt:
    """A problem in token ids.

    Attributes:
        problem: the question and its gold answer.
        ids: the prompt's tokens.
        expert: the expert's response in tokens, end token included unless it was cut; empty where the data has none.
        expert_cut: the expert's response is longer than a rollout may be.
    """

    problem: Problem
    ids: list[int]
    expert: tuple[int, ...] = ()
    expert_cut: bool = False


@dataclass(frozen=True)
class Rollout:
    """One graded response to prompt number `group` of the step.

    Attributes:
        group: which prompt of the step.
        sample: which response of its group.
        prompt: the prompt.
        given: leading tokens of the response that the expert wrote; all of them in an expert row.
        completion: what the engine wrote after these; nothing in an expert row.
        grade: of the whole response.
    """

    group: int
    sample: int
    prompt: Prompt
    completion: Completion
    grade: Grade
    given: int = 0

    @property
    def response(self) -> tuple[int, ...]:
        """All tokens of the response."""
        return (*self.prompt.expert[: self.given], *self.completion.token_ids)

    @property
    def sampled(self) -> bool:
        """Whether the policy had a part in it."""
        return bool(self.completion.token_ids)


def describe(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Rewards, the reasons behind them, and lengths in tokens: of what the policy wrote from the start.

    Rows with expert tokens are reported apart, under `reward/expert`.
    """
    own = [rollout for rollout in rollouts if not rollout.given]
    guided = [rollout.grade.strict or 0.0 for rollout in rollouts if rollout.given]
    graded = [rollout.grade for rollout in own if rollout.grade.strict is not None]
    reasons = Counter(rollout.grade.reason for rollout in own)
    troubles = Counter(rollout.grade.status for rollout in own if rollout.grade.status != "ok")
    lengths = [len(rollout.completion.token_ids) for rollout in own]
    cut = sum(rollout.completion.finish_reason == "length" for rollout in own)
    some = max(1, len(own))
    return {
        "reward/mean": sum(grade.strict or 0.0 for grade in graded) / max(1, len(graded)),
        "reward/answer": sum(grade.answer or 0.0 for grade in graded) / max(1, len(graded)),
        "reward/format": sum(grade.format_error is None for grade in graded) / max(1, len(graded)),
        **{f"reward/{reason}": count / some for reason, count in sorted(reasons.items())},
        **{f"reward/grader_{status}": count / some for status, count in sorted(troubles.items())},
        **({"reward/expert": sum(guided) / len(guided)} if guided else {}),
        "completions/mean_length": sum(lengths) / some,
        "completions/clipped_ratio": cut / some,
    }


def as_row(rollout: Rollout) -> dict[str, Any]:
    """One line of the rollouts file: token ids, log-probabilities, reward, reason, weight version."""
    return {
        "id": rollout.prompt.problem.id,
        "group": rollout.group,
        "sample": rollout.sample,
        "given": rollout.given,
        "token_ids": list(rollout.completion.token_ids),
        "logprobs": list(rollout.completion.logprobs),
        "finish_reason": rollout.completion.finish_reason,
        "weights_version": rollout.completion.weights_version,
        "reward": rollout.grade.strict,
        "reason": rollout.grade.reason,
        "grade": asdict(rollout.grade),
    }


def from_row(row: Mapping[str, Any], prompt: Prompt) -> Rollout:
    """The inverse of `as_row`: floats come back bit for bit."""
    completion = Completion(
        tuple(row["token_ids"]), tuple(row["logprobs"]), row["finish_reason"], row["weights_version"]
    )
    return Rollout(row["group"], row["sample"], prompt, completion, Grade(**row["grade"]), row["given"])


def saved_rollouts(path: Path, prompts: Mapping[int, Prompt], version: int) -> Iterator[Rollout]:
    """The rollouts of a file that answer these prompts (by group) with these weights; others are stale."""
    for row in read_jsonl(path):
        prompt = prompts.get(row["group"])
        if prompt is not None and prompt.problem.id == row["id"] and row["weights_version"] == version:
            yield from_row(row, prompt)


def save_rollouts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """Write one compressed file, complete or not at all."""
    write_compressed_jsonl(path, map(as_row, rollouts))
