"""Reinforcement learning with verifiable rewards: GRPO (Table 6), LUFFY, RL-PLUS, Prefix-RFT and HPT.

    for each step:
        sample G responses to each of P prompts       (engine; graded while others still run; expert rows join here)
        reward: 1 if correct and well formatted       (grader processes)
        advantage within each group of G
        old log-probabilities                         (of the samples that later updates learn from)
        for each mini-batch of prompts: loss, clip, optimizer step
        hand the new weights to the engine            (checked against the trainer's log-probabilities)
        look at benchmarks; log; save

Absent from the textbook loop: no reward model, no value function, no KL term. Token ids go in and token ids come
out; nothing is tokenised twice.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.engine.base import Sampling
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.objectives import RL_OBJECTIVES, BoundObjective
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console, Metrics
from curiosft_cli.run.rundir import StageDir, resolve_checkpoint
from curiosft_cli.run.sections import Config
from curiosft_cli.stages.engine_spec import engine_spec
from curiosft_cli.stages.handover import hand_over, open_engine_beside
from curiosft_cli.stages.rl.rollouts import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curiosft_cli.engine.base import RolloutEngine
    from curiosft_cli.stages.rl.groups import Grouping, Sample
    from curiosft_cli.train.guards import Guards
    from curiosft_cli.train.loop import Loop


def run(config: Config, stage: StageDir) -> None:
    """Train to the last step, from the newest checkpoint of this stage if there is one."""
    from curiosft_cli.engine.vllm_engines.nccl_transfer import require_nccl
    from curiosft_cli.stages.rl.groups import GROUPINGS
    from curiosft_cli.stages.rl.preflight import enforce, preflight
    from curiosft_cli.stages.rl.prompts import read_prompts
    from curiosft_cli.stages.rl.sampling import Sampler
    from curiosft_cli.stages.rl.updates import SUPPLIED
    from curiosft_cli.stages.step_evaluation import SampledCurve, asked_between_steps, is_due
    from curiosft_cli.train.encode import Row, stop_token_ids
    from curiosft_cli.train.load import check_context
    from curiosft_cli.train.loop import Loop
    from curiosft_cli.train.start import check_supplied, start_accelerator

    rl = config.rl
    if rl.server_sync == "nccl":
        require_nccl()
    accelerator = start_accelerator(config, stage)
    console = Console(stage.log_file, enabled=accelerator.is_main_process)
    objective, grouping = RL_OBJECTIVES[rl.objective].bind(**rl.params), GROUPINGS[rl.objective]
    check_supplied(objective, rl.objective, SUPPLIED)
    asked, init = asked_between_steps(config, rl), resolve_checkpoint(rl.init, config)
    loop = Loop.open(config, rl, stage, init, accelerator)
    step = loop.resume()
    guards = open_guards(config)
    guards.load(loop.counters.get("guards", {}))
    path = str(loop.source or init)
    prompts = read_prompts(
        config, stage, loop.tokenizer, console, expert=grouping.expert, write=accelerator.is_main_process
    )
    curve = SampledCurve(config, rl, asked, loop, path, stage, console)
    longest = max(len(p.ids) for p in prompts) + rl.max_completion_length
    context = check_context(path, config.model, max(longest, curve.context))
    sampling = Sampling(rl.temperature, rl.top_p, rl.max_completion_length, stop_token_ids(loop.tokenizer, path))
    metrics = Metrics(stage.metrics_file, step, accelerator) if accelerator.is_main_process else None
    engine = open_rollout_engine(config, stage, path, context, loop)
    console.say(f"rl: {rl.objective}, {len(prompts)} prompts, steps {step} to {rl.steps}, {loop.describe()}")
    try:
        with GraderPool(rl.grader_workers) as pool:
            # The engine's weights bear the number of the step they come from, also in a resumed run.
            every, tolerance = rl.handover_check_every, rl.handover_tolerance
            probe = Row(tuple(prompts[0].ids[:1]), tuple(prompts[0].ids[1:]))
            hand_over(engine, loop, probe, step, every=every, tolerance=tolerance)
            if step == 0 and rl.preflight != "off":
                enforce(preflight(config, loop.tokenizer, prompts, engine, sampling), rl.preflight, console)
            sampler = Sampler(config, stage, loop, engine, sampling, pool, grouping, objective.params, prompts)
            while step < rl.steps:
                started = time.monotonic()
                rollouts, samples = sampler.step(step)
                engine.sleep()
                sampled = time.monotonic()

                values = update_policy(config, objective, grouping, samples, loop, step)
                step += 1
                trained = time.monotonic()
                seen = curve.look(engine, step) if is_due(step, rl.eval_steps, rl.steps) else {}
                looked = time.monotonic()

                engine.wake()
                probe = next(
                    (s.row for s in samples if s.row.response_ids), Row((prompts[0].ids[0],), (prompts[0].ids[1],))
                )
                hand_over(engine, loop, probe, step, every=every, tolerance=tolerance)
                handed = time.monotonic()

                values |= describe(rollouts) | seen
                values |= {
                    "completions/groups_used": len({sample.group for sample in samples}),
                    "time/sample_s": sampled - started,
                    "time/train_s": trained - sampled,
                    "time/handover_s": handed - looked,
                    "time/step_s": time.monotonic() - started - (looked - trained),
                }
                if metrics and (seen or step % config.log.every == 0 or step == rl.steps):
                    metrics.log(step, values)
                console.progress(
                    step, rl.steps, f"rl: reward {values['reward/mean']:.3f}, {values['time/step_s']:.0f} s a step"
                )
                for breach in (breaches := guards.check(step, values)):
                    console.say(f"rl: warning: {breach}")
                score, stopping = seen.get("eval/avg"), breaches and rl.guards.action == "stop"
                if step % rl.save_steps == 0 or step == rl.steps or loop.is_best(score) or stopping:
                    loop.save(step, score=score, guards=guards.state())
                guards.stop(breaches)
    finally:
        engine.close()
        console.close()


def open_rollout_engine(config: Config, stage: StageDir, path: str, context: int, loop: Loop) -> RolloutEngine:
    """The engine of this rank, in the precision of the trainer's products, or the servers that stand for it."""
    from curiosft_cli.engine.vllm_engines.remote import RemoteEngine
    from curiosft_cli.engine.weight_handover import FullState

    # At temperature 1 the trainer sees the same numbers over the whole vocabulary; at others only the sampler has them.
    logprobs = "raw" if config.rl.temperature == 1.0 else "processed"
    if config.rl.servers:
        return RemoteEngine(
            config.rl.servers,
            engine_spec(config, path, context, logprobs=logprobs),
            weights=Path(config.rl.server_weights or stage.path / "server-weights"),
            writer=loop.accelerator.is_main_process,
            over_nccl=FullState(loop.model) if config.rl.server_sync == "nccl" else None,
        )

    return open_engine_beside(config, config.rl, path, context, loop.dtype_name, logprobs)


def update_policy(
    config: Config, objective: BoundObjective, grouping: Grouping, samples: Sequence[Sample], loop: Loop, step: int
) -> dict[str, float]:
    """One update per mini-batch of prompts; returns what there is to log. Every sample may be of no use: then none."""
    from curiosft_cli.stages.rl.groups import mini_batches
    from curiosft_cli.stages.rl.updates import (
        anchored,
        filter_prefixes,
        importance_cap,
        nucleus,
        open_batches,
        record_sampler,
    )
    from curiosft_cli.train.optim import constant_lr

    rl, cap = config.rl, importance_cap(config.rl, loop.dtype_name)
    with loop.timed("old"):
        batches = open_batches(mini_batches(samples, rl.mini_batch_prompts), rl, loop)
    for number, batch in enumerate(batches):
        if grouping.filters:
            filter_prefixes(batch, objective.params["prefix_keep_fraction"], rl, loop)
        bound = objective if batch.scored else anchored(objective, rl, cap)
        totals = loop.totals(batch.rows, batch.packs, rl.max_completion_length, bound, batch.extras)
        for place, (pack, extra) in enumerate(zip(batch.packs, batch.extras, strict=True), start=1):
            last, top_p = place == len(batch.packs), None if batch.scored else nucleus(rl)
            seen = loop.accumulate(pack, bound, extra, totals, last=last, temperature=rl.temperature, top_p=top_p)
            if not batch.scored and pack.counted:
                record_sampler(loop, extra, seen.logp, seen.kept_mass, rl, cap)
        update = step * (rl.prompts_per_step // rl.mini_batch_prompts) + number
        rate = constant_lr(update, peak=rl.learning_rate, warmup_steps=rl.warmup_steps)
        loop.update(rate, rl.skip_grad_norm)
    return loop.report()


def open_guards(config: Config) -> Guards:
    """The guard rails of `[rl.guards]`."""
    from curiosft_cli.train.guards import Guards, Rule

    limits = config.rl.guards
    rules = (
        Rule("reward/mean", "the reward is stuck at 0", below=limits.reward_min),
        Rule("reward/mean", "the reward is stuck at 1", above=limits.reward_max),
        Rule("completions/clipped_ratio", "rollouts are cut at rl.max_completion_length", above=limits.clipped_max),
        Rule("train/entropy_nats", "the entropy has collapsed", below=limits.entropy_min_nats),
        Rule("train/entropy_nats", "the entropy explodes", above=limits.entropy_max_nats),
        Rule("train/mismatch_nats", "engine and trainer disagree", above=limits.mismatch_max_nats),
    )
    return Guards(rules, limits.action, limits.patience, limits.window)


if __name__ == "__main__":
    run_stage(run)
