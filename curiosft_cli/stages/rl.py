"""Reinforcement learning with verifiable rewards: GRPO (Table 6) and its relatives.

    for each step:
        sample G completions of each of P prompts     (engine; graded while others still run)
        reward: 1 if correct and well formatted       (grader processes)
        advantage within each group of G
        old log-probabilities                         (only when more than one update needs them)
        for each mini-batch of prompts: loss, clip, optimizer step
        hand the new weights to the engine            (checked against the trainer's log-probabilities)
        log; save

Absent from the textbook loop: no reward model, no value function, no KL term. Token ids go in and token ids come
out; nothing is tokenised twice.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.base import Sampling
from curiosft_cli.engine.rollouts import Prompt, Rollout, describe, save_rollouts
from curiosft_cli.objectives import RL_OBJECTIVES, BoundObjective
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console, Metrics
from curiosft_cli.run.rundir import StageDir, resolve_checkpoint
from curiosft_cli.run.sections import Config
from curiosft_cli.tasks.grader_pool import GraderPool
from curiosft_cli.tasks.records import Grade
from curiosft_cli.tasks.seeds import sample_seed
from curiosft_cli.tasks.sources import read_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from curiosft_cli.engine.base import Completion, RolloutEngine
    from curiosft_cli.train.encode import Row
    from curiosft_cli.train.loop import Loop

# What the loop below can give an objective; the head computes entropy and logits itself.
SUPPLIED = frozenset({"old_logp", "advantage", "entropy", "logits"})


def run(config: Config, stage: StageDir) -> None:
    """Train to the last step, from the newest checkpoint of this stage if there is one."""
    from curiosft_cli.engine.open import open_engine
    from curiosft_cli.train.batches import step_rows
    from curiosft_cli.train.encode import stop_token_ids
    from curiosft_cli.train.load import check_context, context_overrides
    from curiosft_cli.train.loop import Loop
    from curiosft_cli.train.start import check_supplied, start_accelerator

    rl = config.rl
    accelerator = start_accelerator(config, stage)
    console = Console(stage.log_file, enabled=accelerator.is_main_process)
    objective = RL_OBJECTIVES[rl.objective].bind(**rl.params)
    check_supplied(objective, rl.objective, SUPPLIED)
    init = resolve_checkpoint(rl.init, config)
    loop = Loop.open(config, rl, stage, init, accelerator)
    step = loop.resume()
    path = str(loop.source or init)
    prompts = encode_prompts(config, stage, loop, console)
    context = check_context(path, config.model, max(len(p.ids) for p in prompts) + rl.max_completion_length)
    sampling = Sampling(rl.temperature, rl.top_p, rl.max_completion_length, stop_token_ids(loop.tokenizer, path))
    metrics = Metrics(stage.metrics_file, step, accelerator) if accelerator.is_main_process else None
    engine = open_engine(
        rl.engine,
        path,
        max_model_len=context,
        dtype=loop.dtype_name,
        seed=config.run.seed,
        cpu_kv_cache_gib=rl.kv_cache_gib,
        gpu_memory_utilization=rl.gpu_memory_utilization,
        hf_overrides=context_overrides(path, config.model),
        trust_remote_code=config.model.trust_remote_code,
    )
    console.say(f"rl: {rl.objective}, {len(prompts)} prompts, steps {step} to {rl.steps}, {loop.describe()}")
    try:
        with GraderPool(rl.grader_workers) as pool:
            while step < rl.steps:
                started = time.monotonic()
                chosen = [prompts[i] for i in step_rows(len(prompts), rl.prompts_per_step, config.run.seed, step)]
                mine = sample_and_grade(config, step, chosen, engine, sampling, pool, loop, console)
                engine.sleep()
                rollouts = gather(mine, loop)
                sampled = time.monotonic()

                values = train_step(config, objective, rollouts, loop, step)
                step += 1
                trained = time.monotonic()

                engine.wake()
                hand_over(config, engine, loop, rollouts[0], step)
                handed = time.monotonic()

                values |= describe(rollouts)
                values |= {
                    "time/sample_s": sampled - started,
                    "time/train_s": trained - sampled,
                    "time/handover_s": handed - trained,
                    "time/step_s": time.monotonic() - started,
                }
                if metrics:
                    save_rollouts(stage.rollouts(step), rollouts)
                    metrics.log(step, values)
                console.progress(
                    step, rl.steps, f"rl: reward {values['reward/mean']:.3f}, {values['time/step_s']:.0f} s a step"
                )
                if step % rl.save_steps == 0 or step == rl.steps:
                    loop.save(step)
    finally:
        engine.close()
        console.close()


def encode_prompts(config: Config, stage: StageDir, loop: Loop, console: Console) -> list[Prompt]:
    """Read and tokenise the questions; say which were left out and why.

    Raises:
        CurioError: none is left.
    """
    from curiosft_cli.tasks.grading import is_gradable
    from curiosft_cli.train.encode import PromptFormat, encode_prompt

    style = PromptFormat.from_config(config.model)
    problems = read_all(config.data, run_dir=stage.path.parent)
    if problems.skipped:
        console.say(f"rl: {len(problems.skipped)} rows could not be read, e.g. {problems.skipped[0]}")
    gradable = [problem for problem in problems if is_gradable(problem)]
    prompts = [Prompt(problem, encode_prompt(loop.tokenizer, problem, style)) for problem in gradable]
    fitting = [prompt for prompt in prompts if len(prompt.ids) <= config.data.max_prompt_length]
    if left := len(problems) - len(gradable):
        console.say(f"rl: {left} questions left out, their answers cannot be graded")
    if left := len(prompts) - len(fitting):
        console.say(f"rl: {left} questions left out, longer than data.max_prompt_length")
    if not fitting:
        raise CurioError(f"no question of {', '.join(config.data.train)} can be trained on", "Look at the lines above.")
    return fitting


def sample_and_grade(
    config: Config,
    step: int,
    prompts: Sequence[Prompt],
    engine: RolloutEngine,
    sampling: Sampling,
    pool: GraderPool,
    loop: Loop,
    console: Console,
) -> list[Rollout]:
    """This rank's share of the step: every completion is handed to the graders as soon as it is finished."""
    from curiosft_cli.train.encode import decode_completion

    share = range(loop.accelerator.process_index, len(prompts), loop.accelerator.num_processes)
    wanted = [(group, sample) for group in share for sample in range(config.rl.num_generations)]
    seeds = [sample_seed(config.run.seed, f"rl-{step}", prompts[group].problem.id, sample) for group, sample in wanted]
    done: dict[int, Completion] = {}
    grades: dict[Any, Grade] = {}
    for index, completion in engine.stream([prompts[group].ids for group, _ in wanted], sampling, seeds):
        done[index] = completion
        pool.submit(
            index,
            decode_completion(loop.tokenizer, completion.token_ids),
            prompts[wanted[index][0]].problem,
            prefilled=bool(config.model.prefill),
            truncated=completion.finish_reason == "length",
        )
        grades.update(pool.poll())
    grades.update(pool.drain())
    return [
        Rollout(group, sample, prompts[group], done[index], grades[index])
        for index, (group, sample) in enumerate(wanted)
    ]


def gather(mine: list[Rollout], loop: Loop) -> list[Rollout]:
    """Everybody's rollouts on every rank, in the order of prompts and samples."""
    if loop.accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        mine = gather_object(mine)
    return sorted(mine, key=lambda rollout: (rollout.group, rollout.sample))


def train_step(
    config: Config, objective: BoundObjective, rollouts: list[Rollout], loop: Loop, step: int
) -> dict[str, float]:
    """Group advantages, then one update per mini-batch of prompts; returns what there is to log."""
    import torch

    from curiosft_cli.objectives.grpo import group_advantage
    from curiosft_cli.train.optim import constant_lr

    rl = config.rl
    # An ungradable answer says nothing: the completion is left out of its group.
    usable = [rollout for rollout in rollouts if rollout.grade.strict is not None]
    advantage = group_advantage(
        torch.tensor([rollout.grade.strict for rollout in usable]),
        torch.tensor([rollout.group for rollout in usable]),
        use_std=rl.advantage_std,
    )
    batches = [
        [index for index, rollout in enumerate(usable) if rollout.group // rl.mini_batch_prompts == number]
        for number in range(rl.prompts_per_step // rl.mini_batch_prompts)
    ]
    batches = [batch for batch in batches if batch]
    packed = [loop.packs([_row(usable[index]) for index in batch], rl.max_tokens_per_batch) for batch in batches]
    if len(batches) == 1:
        objective, old = on_policy(objective), None
    else:
        old = [[loop.student_module.scored(pack, rl.temperature).logp for pack in packs] for packs in packed]

    values: dict[str, float] = {}
    for number, (batch, packs) in enumerate(zip(batches, packed, strict=True)):
        extras: list[dict[str, Tensor]] = []
        for place, pack in enumerate(packs):
            members = [batch[member] for member in pack.members]
            extras.append({"advantage": advantage[members].to(pack.labels.device)[pack.sequence]})
            if old:
                extras[-1]["old_logp"] = old[number][place]
        rows = [_row(usable[index]) for index in batch]
        totals = loop.totals(rows, packs, rl.max_completion_length, objective, extras)
        for place, (pack, extra) in enumerate(zip(packs, extras, strict=True)):
            members = [batch[member] for member in pack.members]
            seen = loop.accumulate(
                pack, objective, extra, totals, last=place == len(packs) - 1, temperature=rl.temperature
            )
            if number == 0 and pack.counted:
                compare_with_engine(loop, seen.logp, [usable[member] for member in members])
        update = step * len(batches) + number
        loop.update(constant_lr(update, peak=rl.learning_rate, warmup_steps=rl.warmup_steps))
        values |= loop.report()
    return values


def on_policy(objective: BoundObjective) -> BoundObjective:
    """With one update a step the old log-probabilities are the current ones: no pass is spent on them."""

    def fn(rows: Any) -> Any:
        return objective.fn(replace(rows, extra={**rows.extra, "old_logp": rows.logp.detach()}))

    return replace(objective, fn=fn)


def compare_with_engine(loop: Loop, logp: Tensor, rollouts: Sequence[Rollout]) -> None:
    """Record how far engine and trainer disagree on the sampled tokens before the step's first update, nats."""
    engine = [value for rollout in rollouts for value in rollout.completion.logprobs]
    loop.stats.add("mismatch_nats", (logp - logp.new_tensor(engine)).abs(), extremes=True)


def hand_over(config: Config, engine: RolloutEngine, loop: Loop, probe: Rollout, step: int) -> None:
    """Give the engine the new weights; after the first and every k-th time, compare log-probabilities.

    Raises:
        CurioError: exit code 4 when the engine does not answer as the trainer does.
    """
    from curiosft_cli.engine.weights import HANDOVER_TOLERANCE, check_handover, full_state

    engine.load_weights(step, full_state(loop.model))
    if step % config.rl.handover_check_every and not loop.first_handover:
        return
    loop.first_handover = False
    row = _row(probe)
    pack = loop.single_pack(row)
    trainer = loop.student_module.scored(pack).logp.tolist()
    scored = engine.score([*row.prompt_ids, *row.response_ids])[-len(row.response_ids) :]
    tolerance = config.rl.handover_tolerance or HANDOVER_TOLERANCE[loop.dtype_name]
    check_handover(scored, trainer, tolerance)


def _row(rollout: Rollout) -> Row:
    from curiosft_cli.train.encode import Row

    return Row(tuple(rollout.prompt.ids), rollout.completion.token_ids, problem_id=rollout.prompt.problem.id)


if __name__ == "__main__":
    run_stage(run)
