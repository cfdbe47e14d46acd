"""The rollouts of one RL step: sampled, graded while others still run, saved as they finish, exactly continued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.base import Completion, sample_seed
from curiosft_cli.run.files import JsonLines
from curiosft_cli.stages.rl.groups import Sample, informative
from curiosft_cli.stages.rl.rollouts import Prompt, Rollout, as_row, cut_to, save_rollouts, saved_rollouts
from curiosft_cli.train.batches import step_rows
from curiosft_cli.train.encode import Row, decode_completion

if TYPE_CHECKING:
    from curiosft_cli.engine.base import RolloutEngine, Sampling
    from curiosft_cli.grading.pool import GraderPool
    from curiosft_cli.run.rundir import StageDir
    from curiosft_cli.run.sections import Config
    from curiosft_cli.stages.rl.groups import Grouping
    from curiosft_cli.train.loop import Loop

Key = tuple[int, int]
"""Group and sample."""


@dataclass
class Sampler:
    """Draws the rollouts of a step on all ranks.

    Attributes:
        params: the objective's parameters; the grouping reads its own.
        waiting: what was asked of the engine and not graded yet.
    """

    config: Config
    stage: StageDir
    loop: Loop
    engine: RolloutEngine
    sampling: Sampling
    pool: GraderPool
    grouping: Grouping
    params: Mapping[str, Any]
    prompts: Sequence[Prompt]
    waiting: dict[Key, tuple[Prompt, int, Completion]] = field(default_factory=dict)

    def step(self, step: int) -> tuple[list[Rollout], list[Sample]]:
        """Everybody's rollouts of the 0-based step, and what of them is trained on; the same on every rank.

        The policy has taken `step` steps: rollouts on disk that other weights made are not used.
        """
        rl, seed = self.config.rl, self.config.run.seed
        chosen = step_rows(len(self.prompts), rl.prompts_per_step, seed, step)
        rollouts = self._round(step, {group: self.prompts[index] for group, index in enumerate(chosen)})
        samples = self._credited(rollouts)
        if rl.zero_variance == "refill":
            for number in range(rl.refill_rounds):
                lacking = rl.prompts_per_step - len(informative(samples))
                more = step_rows(len(self.prompts), rl.prompts_per_step, seed + 1, step * rl.refill_rounds + number)
                new = [index for index in more if index not in chosen][: max(0, lacking)]
                if not new:
                    break
                rollouts += self._round(step, {len(chosen) + at: self.prompts[index] for at, index in enumerate(new)})
                chosen += new
                samples = self._credited(rollouts)
        self._keep(step, rollouts)
        if rl.zero_variance != "keep":
            useful = set(sorted(informative(samples))[: rl.prompts_per_step])
            samples = [sample for sample in samples if sample.group in useful]
        return rollouts, samples

    def _credited(self, rollouts: Sequence[Rollout]) -> list[Sample]:
        """Training rows with their advantages. An ungradable answer says nothing: it is left out of its group."""
        std = self.config.rl.advantage_std
        samples = [
            Sample(
                Row(tuple(r.prompt.ids), r.response, problem_id=r.prompt.problem.id),
                r.group,
                r.grade.strict,
                r.given,
                r.completion.logprobs,
            )
            for r in rollouts
            if r.grade.strict is not None
        ]
        return self.grouping.credit(samples, self.params, self.grouping.use_std if std is None else std)

    def _round(self, step: int, groups: Mapping[int, Prompt]) -> list[Rollout]:
        """All ranks' rollouts of these prompts, in the order of prompts and samples."""
        accelerator = self.loop.accelerator
        wanted = self._plan(step, groups)
        share = set(sorted(groups)[accelerator.process_index :: accelerator.num_processes])
        found = {(r.group, r.sample): r for r in saved_rollouts(self.stage.rollouts(step + 1), groups, step)}
        whole = wanted.keys() <= found.keys()
        partial = self.stage.rollouts(step + 1, accelerator.process_index)
        if not whole:
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
        """Every response of the step and how many of its tokens the expert gives."""
        plan: dict[Key, int] = {}
        for group, prompt in sorted(groups.items()):
            random = Random(sample_seed(self.config.run.seed, f"rl-{step}-given", prompt.problem.id, 0))
            given = self.grouping.given(len(prompt.expert), self.config.rl.num_generations, step, self.params, random)
            plan |= {(group, sample): tokens for sample, tokens in enumerate(given)}
        return plan

    def _draw(self, step: int, groups: Mapping[int, Prompt], missing: Mapping[Key, int]) -> Iterator[Rollout]:
        """Yield graded rollouts in the order in which they are done."""
        requests: list[Key] = []
        for key, given in missing.items():
            prompt = groups[key[0]]
            if given and given == len(prompt.expert):
                reason = "length" if prompt.expert_cut else "stop"
                self._submit(key, prompt, given, Completion((), (), reason, step))
            else:
                requests.append(key)
        inputs = [[*groups[key[0]].ids, *groups[key[0]].expert[: missing[key]]] for key in requests]
        seeds = [
            sample_seed(self.config.run.seed, f"rl-{step}", groups[group].problem.id, sample)
            for group, sample in requests
        ]
        if requests:
            for index, completion in self.engine.stream(inputs, self.sampling, seeds):
                key = requests[index]
                room = self.sampling.max_tokens - missing[key]
                self._submit(key, groups[key[0]], missing[key], cut_to(completion, room))
                for graded in self.pool.poll():
                    yield self._done(*graded)
        for graded in self.pool.drain():
            yield self._done(*graded)

    def _submit(self, key: Key, prompt: Prompt, given: int, completion: Completion) -> None:
        self.waiting[key] = prompt, given, completion
        self.pool.submit(
            key,
            decode_completion(self.loop.tokenizer, (*prompt.expert[:given], *completion.token_ids)),
            prompt.problem,
            prefilled=bool(self.config.model.prefill),
            truncated=completion.finish_reason == "length",
        )

    def _done(self, key: Any, grade: Any) -> Rollout:
        prompt, given, completion = self.waiting.pop(key)
        return Rollout(*key, prompt, completion, grade, given)

    def _keep(self, step: int, rollouts: Sequence[Rollout]) -> None:
        """Make the step's file complete, then forget what the ranks wrote on the way."""
        accelerator = self.loop.accelerator
        own = self.stage.rollouts(step + 1, accelerator.process_index)
        if accelerator.is_main_process and (own.exists() or not self.stage.rollouts(step + 1).exists()):
            save_rollouts(self.stage.rollouts(step + 1), rollouts)
        accelerator.wait_for_everyone()
        own.unlink(missing_ok=True)
