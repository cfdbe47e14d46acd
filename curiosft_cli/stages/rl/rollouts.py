"""The rollouts of one RL step: sampled, graded while others still run, saved as they finish, exactly continued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.engine.base import Completion, sample_seed
from curiosft_cli.run.files import JsonLines, read_jsonl, write_compressed_jsonl
from curiosft_cli.stages.graded_stream import GradedRequest, graded_stream
from curiosft_cli.train.batches import step_rows
from curiosft_cli.train.encode import Row
from curiosft_cli.train.start import gather_objects
from curiosft_cli.train.trackers import Rows, table_row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.engine.base import RolloutEngine, Sampling
    from curiosft_cli.grading.pool import GraderPool
    from curiosft_cli.run.rundir import StageDir
    from curiosft_cli.run.sections import Config
    from curiosft_cli.train.loop import Loop


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


def why_no_reward(values: Mapping[str, float], most: float = 0.5) -> tuple[str, str]:
    """The likely cause of a reward of 0, and what to do about it, from what `describe` gives.

    Args:
        values: the metrics of one step.
        most: share of the rollouts that makes a fault the likely cause.
    """
    faults = sum(share for name, share in values.items() if name.startswith("reward/grader_"))
    if faults > most:
        return f"the grader failed on {faults:.0%} of the rollouts", "Look at reward/grader_STATUS in metrics.jsonl."
    learn_format = "Train with sft first, or check model.system_prompt and model.prefill."
    if values["reward/answer"] > 0:
        return f"{values['reward/answer']:.0%} of the answers are right, but not in the required format", learn_format
    if (cut := values["completions/clipped_ratio"]) > most:
        return (
            f"{cut:.0%} of the rollouts are cut before their answer",
            "Raise rl.max_completion_length, or start from a checkpoint that ends its answers.",
        )
    if (shaped := values["reward/format"]) < 1 - most:
        return f"only {shaped:.0%} of the rollouts have the required format", learn_format
    return (
        f"{shaped:.0%} of the rollouts have the required format, and none is right: the questions are too hard",
        "Train with sft first, or choose easier questions or a stronger base model.",
    )


def sample_table(rollouts: Sequence[Rollout], tokenizer: PreTrainedTokenizerBase) -> Rows:
    """The rows of these rollouts in the table that trackers get."""
    return [
        table_row(rollout.prompt.problem, str(tokenizer.decode(list(rollout.response))), rollout.grade)
        for rollout in rollouts
    ]


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


Key = tuple[int, int]
"""Group and sample."""


@dataclass
class RolloutSampler:
    """Draws and grades the rollouts of a step on all ranks.

    Attributes:
        rows: (expert's length, rollouts, step, random numbers) -> expert tokens at the start of each row of a group.
        informative: the groups among these rollouts that teach something.
        probe: a short row of the last rollouts, to compare the engine with the trainer.
    """

    config: Config
    stage: StageDir
    loop: Loop
    engine: RolloutEngine
    sampling: Sampling
    pool: GraderPool
    prompts: Sequence[Prompt]
    rows: Callable[[int, int, int, Random], list[int]]
    informative: Callable[[Sequence[Rollout]], Collection[int]]
    probe: Row = field(init=False)

    def __post_init__(self) -> None:
        first = self.prompts[0].ids
        self.probe = Row(tuple(first[:1]), tuple(first[1:]))

    def sample(self, step: int) -> list[Rollout]:
        """The graded rollouts of the 0-based step, of all ranks; the same on every rank.

        The policy has taken `step` steps: rollouts on disk that other weights made are not used.
        """
        rl, seed = self.config.rl, self.config.run.seed
        drop_last = self.config.data.drop_last
        chosen = step_rows(len(self.prompts), rl.prompts_per_step, seed, step, drop_last)
        rollouts = self._round(step, {group: self.prompts[index] for group, index in enumerate(chosen)})
        for number in range(rl.refill_rounds if rl.zero_variance == "refill" else 0):
            lacking = rl.prompts_per_step - len(self.informative(rollouts))
            turn = step * rl.refill_rounds + number
            more = step_rows(len(self.prompts), rl.prompts_per_step, seed + 1, turn, drop_last)
            new = [index for index in more if index not in chosen][: max(0, lacking)]
            if not new:
                break
            rollouts += self._round(step, {len(chosen) + at: self.prompts[index] for at, index in enumerate(new)})
            chosen += new
        self._keep(step, rollouts)
        written = (rollout for rollout in rollouts if rollout.grade.strict is not None and rollout.response)
        if (rollout := next(written, None)) is not None:
            self.probe = Row(tuple(rollout.prompt.ids), rollout.response)
        return rollouts

    def _round(self, step: int, groups: Mapping[int, Prompt]) -> list[Rollout]:
        """All ranks' rollouts of these prompts, in the order of prompts and samples."""
        accelerator = self.loop.accelerator
        wanted = self._plan(step, groups)
        share = set(sorted(groups)[accelerator.process_index :: accelerator.num_processes])
        found = {(r.group, r.sample): r for r in saved_rollouts(self.stage.rollouts(step + 1), groups, step)}
        if not wanted.keys() <= found.keys():
            if self.config.rl.resume_rollouts == "redo" and 0 in groups:
                self._remove_partial(step)
            # With another number of ranks, others have begun what is this one's: all read before one writes.
            begun = [r for file in self.stage.partial_rollouts(step + 1) for r in saved_rollouts(file, groups, step)]
            accelerator.wait_for_everyone()
            found = {(r.group, r.sample): r for r in begun}
            missing = {key: given for key, given in wanted.items() if key[0] in share and key not in found}
            with JsonLines(self.stage.rollouts(step + 1, accelerator.process_index)) as file:
                for rollout in self._draw(step, groups, missing):
                    file.append(as_row(rollout))
                    found[rollout.group, rollout.sample] = rollout
        mine = [found[key] for key in wanted if key[0] in share]
        return sorted(gather_objects(accelerator, mine), key=lambda rollout: (rollout.group, rollout.sample))

    def _plan(self, step: int, groups: Mapping[int, Prompt]) -> dict[Key, int]:
        """Every response of the step, and how many tokens at its start are the expert's."""
        plan: dict[Key, int] = {}
        for group, prompt in sorted(groups.items()):
            random = Random(sample_seed(self.config.run.seed, f"rl-{step}-given", prompt.problem.id, 0))
            given = self.rows(len(prompt.expert), self.config.rl.num_generations, step, random)
            plan |= {(group, sample): tokens for sample, tokens in enumerate(given)}
        return plan

    def _draw(self, step: int, groups: Mapping[int, Prompt], missing: Mapping[Key, int]) -> Iterator[Rollout]:
        """Yield graded rollouts in the order in which they are done."""
        requests = [self._request(step, key, groups[key[0]], given) for key, given in missing.items()]
        grading: dict[str, Any] = {"prefilled": bool(self.config.model.prefill), "grader": self.config.rl.reward_grader}
        for done in graded_stream(self.engine, self.pool, self.loop.tokenizer, requests, self.sampling, **grading):
            key = done.request.key
            yield Rollout(*key, groups[key[0]], done.completion, done.grade, missing[key])

    def _request(self, step: int, key: Key, prompt: Prompt, given: int) -> GradedRequest:
        """One response; where the expert wrote all of it, nothing is sampled."""
        group, sample = key
        complete = None
        if given and given == len(prompt.expert):
            complete = Completion((), (), "length" if prompt.expert_cut else "stop", step)
        seed = sample_seed(self.config.run.seed, f"rl-{step}", prompt.problem.id, sample)
        return GradedRequest((group, sample), prompt.problem, prompt.ids, seed, prompt.expert[:given], complete)

    def _keep(self, step: int, rollouts: Sequence[Rollout]) -> None:
        """Make the step's file complete; then remove the files that the ranks wrote on the way."""
        whole = self.stage.rollouts(step + 1)
        if self.loop.accelerator.is_main_process and (self.stage.partial_rollouts(step + 1) or not whole.exists()):
            save_rollouts(whole, rollouts)
        self._remove_partial(step)

    def _remove_partial(self, step: int) -> None:
        """Remove what the ranks wrote on the way. No rank reads or writes it while this runs."""
        self.loop.accelerator.wait_for_everyone()
        if self.loop.accelerator.is_main_process:
            for partial in self.stage.partial_rollouts(step + 1):
                partial.unlink()
        self.loop.accelerator.wait_for_everyone()
