"""Reinforcement learning with verifiable rewards: GRPO (Table 6), LUFFY, RL-PLUS, Prefix-RFT and HPT.

    for each step:
        hand the policy's weights to the engine       (checked against the trainer's log-probabilities)
        sample G responses to each of P prompts       (engine; expert rows join here)
        reward: 1 if correct and well formatted       (grader processes, while other responses still run)
        advantage within each group of G
        old log-probabilities                         (of the samples that later updates learn from)
        for each mini-batch of prompts: loss, clip, optimizer step
        evaluate benchmarks; log; save

Absent from the textbook loop: no reward model, no value function, no KL term. Token ids go in and token ids come
out; nothing is tokenised twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.engine.base import Sampling
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.objectives import RL_METHODS
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config
from curiosft_cli.stages.engine_spec import engine_spec
from curiosft_cli.stages.handover import HandOver, asleep, open_engine_beside
from curiosft_cli.stages.rl.rollouts import describe, why_no_reward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curiosft_cli.engine.base import RolloutEngine
    from curiosft_cli.stages.bookkeeping import Bookkeeping
    from curiosft_cli.stages.rl.groups import TrainingSample
    from curiosft_cli.stages.rl.rollouts import Prompt, Rollout
    from curiosft_cli.train.guards import Guards

PROGRESS = "reward {reward/mean:.3f}, entropy {train/entropy_nats:.3f} nats, {time/step_s:.0f} s a step"


def run(config: Config, stage: StageDir) -> None:
    """Train to the last step, from the newest checkpoint of this stage if there is one."""
    from curiosft_cli.engine.vllm_engines.nccl_transfer import require_nccl
    from curiosft_cli.stages.bookkeeping import Bookkeeping
    from curiosft_cli.stages.rl.groups import informative, trained_on, with_advantages
    from curiosft_cli.stages.rl.preflight import enforce, preflight
    from curiosft_cli.stages.rl.prompts import read_prompts
    from curiosft_cli.stages.rl.rollouts import RolloutSampler, sample_table
    from curiosft_cli.stages.rl.updates import SUPPLIED, Updates
    from curiosft_cli.train.trackers import SAMPLE_COLUMNS, log_table

    rl, method = config.rl, RL_METHODS[config.rl.objective]
    if rl.server_sync == "nccl":
        require_nccl()
    with Bookkeeping.open(config, "rl", rl, stage, method.objective, SUPPLIED) as book:
        loop, objective = book.loop, book.objective
        first = loop.accelerator.is_main_process
        prompts = read_prompts(config, stage, loop.tokenizer, book.console, expert=method.needs_expert, write=first)
        book.begin(total_steps(config, len(prompts)), f"{len(prompts)} prompts", open_guards(config), PROGRESS)

        def advantages(rollouts: Sequence[Rollout]) -> list[TrainingSample]:
            return with_advantages(rollouts, method, objective, rl)

        def teaching(rollouts: Sequence[Rollout]) -> set[int]:
            return informative(advantages(rollouts))

        engine, sampling = open_rollout_engine(book, prompts)
        with asleep(engine), GraderPool(rl.grader_workers) as pool:
            rows, updates = objective.filled(method.rows), Updates(rl, loop, method, objective)
            sampler = RolloutSampler(config, stage, loop, engine, sampling, pool, prompts, rows, teaching)
            hand_over = HandOver(engine, loop, rl.handover_check_every, rl.handover_tolerance)
            if book.done == 0 and rl.preflight != "off":
                hand_over(0, sampler.probe)
                enforce(preflight(config, loop.tokenizer, prompts, engine, sampling), rl.preflight, book.console)
                engine.sleep()
            for step in book.steps():
                with loop.timed("handover", elsewhere=True):
                    hand_over(step, sampler.probe)
                with loop.timed("sample", elsewhere=True):
                    rollouts = sampler.sample(step)  # and reward: each is graded while others still run
                    engine.sleep()
                with loop.timed("train"):
                    samples = trained_on(advantages(rollouts), rl)
                    with loop.timed("old"):
                        batches = updates.batches(samples)
                    for number, batch in enumerate(batches):
                        updates.accumulate(batch)  # the loss and its gradients
                        loop.update(updates.learning_rate(step, number), rl.skip_grad_norm)
                if book.saves_at(step + 1):
                    shown = sample_table(rollouts[: config.log.table_rows], loop.tokenizer)
                    log_table(loop.accelerator, step + 1, "samples/rollouts", SAMPLE_COLUMNS, shown)
                used = {"completions/groups_used": len({sample.group for sample in samples})}
                book.after(step + 1, describe(rollouts) | used, engine)


def total_steps(config: Config, prompts: int) -> int:
    """Steps of the training: `rl.epochs` passes over the prompts, or `rl.steps`."""
    from curiosft_cli.train.batches import steps_per_epoch

    rl = config.rl
    per_epoch = steps_per_epoch(prompts, rl.prompts_per_step, config.data.drop_last)
    return rl.steps if rl.epochs is None else rl.epochs * per_epoch


def open_rollout_engine(book: Bookkeeping, prompts: Sequence[Prompt]) -> tuple[RolloutEngine, Sampling]:
    """The engine of this rank, in the precision of the trainer's products, or the servers that stand for it."""
    from curiosft_cli.engine.vllm_engines.remote import RemoteEngine
    from curiosft_cli.train.encode import stop_token_ids
    from curiosft_cli.train.load import check_context
    from curiosft_cli.train.shards import WholeWeights

    config, loop, rl = book.config, book.loop, book.config.rl
    longest = max(len(prompt.ids) for prompt in prompts) + rl.max_completion_length
    context = check_context(book.path, config.model, max(longest, book.evaluation.context))
    stop = stop_token_ids(loop.tokenizer, book.path)
    sampling = Sampling(rl.temperature, rl.top_p, rl.max_completion_length, stop)
    # At temperature 1 the trainer sees the same numbers over the whole vocabulary; at others only the sampler has them.
    logprobs = "raw" if rl.temperature == 1.0 else "processed"
    if not rl.servers:
        return open_engine_beside(config, rl, book.path, context, loop.dtype_name, logprobs), sampling
    engine = RemoteEngine(
        rl.servers,
        engine_spec(config, book.path, context, logprobs=logprobs),
        weights=Path(rl.server_weights or book.stage.path / "server-weights"),
        writer=loop.accelerator.is_main_process,
        over_nccl=WholeWeights(loop.model) if rl.server_sync == "nccl" else None,
    )
    return engine, sampling


def open_guards(config: Config) -> Guards:
    """The guard rails of `[rl.guards]`."""
    from curiosft_cli.train.guards import Guards, Rule

    limits = config.rl.guards
    action = None if RL_METHODS[config.rl.objective].needs_expert else limits.reward_min_action
    rules = (
        Rule("reward/mean", "the reward is stuck at 0", below=limits.reward_min, action=action, cause=why_no_reward),
        Rule("reward/mean", "the reward is stuck at 1", above=limits.reward_max),
        Rule("completions/clipped_ratio", "rollouts are cut at rl.max_completion_length", above=limits.clipped_max),
        Rule("train/entropy_nats", "the entropy has collapsed", below=limits.entropy_min_nats),
        Rule("train/entropy_nats", "the entropy explodes", above=limits.entropy_max_nats),
        Rule("train/mismatch_nats", "engine and trainer disagree", above=limits.mismatch_max_nats),
    )
    return Guards(rules, limits.action, limits.patience, limits.window)


if __name__ == "__main__":
    run_stage(run)
