"""The rollouts of one RL step: sampled, graded while others still run, saved as they finish, exactly continued."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.base import Completion, sample_seed
from curiosft_cli.run.files import JsonLines
from curiosft_cli.stages.graded_stream import GradedRequest, graded_stream
from curiosft_cli.stages.rl.groups import TrainingSample, informative
from curiosft_cli.stages.rl.rollouts import Prompt, Rollout, as_row, save_rollouts, saved_rollouts
from curiosft_cli.train.batches import step_rows
from curiosft_cli.train.encode import Row

if TYPE_CHECKING:
    from curiosft_cli.engine.base import RolloutEngine, Sampling
    from curiosft_cli.grading.pool import GraderPool
    from curiosft_cli.run.rundir import StageDir
    from curiosft_cli.run.sections import Config
    from curiosft_cli.train.loop import Loop

Key = tuple[int, int]
"""Group and sample."""


@dataclass
class RolloutSampler:
    """Draws and grades the rollouts of a step on all ranks.

    Attributes:
        rows: (expert's length, rollouts, step, random numbers) -> expert tokens at the start of each row of a group.
        advantages: from rollouts to training rows; tells which groups teach something.
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
    advantages: Callable[[Sequence[Rollout]], list[TrainingSample]]
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
            lacking = rl.prompts_per_step - len(informative(self.advantages(rollouts)))
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
            partial = self.stage.rollouts(step + 1, accelerator.process_index)
            if self.config.rl.resume_rollouts == "redo" and 0 in groups:
                partial.unlink(missing_ok=True)
            found = {(r.group, r.sample): r for r in saved_rollouts(partial, groups, step)}
            missing = {key: given for key, given in wanted.items() if key[0] in share and key not in found}
            with JsonLines(partial) as file:
                for rollout in self._draw(step, groups, missing):
                    file.append(as_row(rollout))
                    found[rollout.group, rollout.sample] = rollout
        mine = [found[key] for key in wanted if key[0] in share]
        if accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            mine = gather_object(mine)
        return sorted(mine, key=lambda rollout: (rollout.group, rollout.sample))

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
        accelerator = self.loop.accelerator
        own = self.stage.rollouts(step + 1, accelerator.process_index)
        if accelerator.is_main_process and (own.exists() or not self.stage.rollouts(step + 1).exists()):
            save_rollouts(self.stage.rollouts(step + 1), rollouts)
        accelerator.wait_for_everyone()
        own.unlink(missing_ok=True)
