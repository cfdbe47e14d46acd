"""Supervised fine-tuning: Algorithm 1 of the paper, and every baseline of its Table 2.

    for each optimizer step:
        take the step's rows, packed                 (the same rows whatever the number of ranks)
        for each pack:
            teacher: log pi_tch(y; tau) per token    (Eq. 4, 7, 8; only for objectives that ask for it)
            student: loss and gradients              (Eq. 1, 5, 6, through the chunked head)
        clip, learning rate, optimizer step
        synchronise the teacher every n steps        (Algorithm 1, lines 16-18)
        log; save

Absent from the textbook loop: no padding (rows are packed), no logits tensor (the head walks in chunks), no
average of averages (sums are divided once by the global token count).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console, Metrics
from curiosft_cli.run.rundir import StageDir, resolve_checkpoint
from curiosft_cli.run.sections import Config
from curiosft_cli.tasks.sources import read_all

if TYPE_CHECKING:
    from curiosft_cli.train.encode import Row
    from curiosft_cli.train.loop import Loop

# What the loop below can give an objective; the head computes entropy and logits itself.
SUPPLIED = frozenset({"teacher_logp", "entropy", "logits"})


def run(config: Config, stage: StageDir) -> None:
    """Train to the last step, from the newest checkpoint of this stage if there is one."""
    from curiosft_cli.train.batches import step_rows, steps_per_epoch
    from curiosft_cli.train.loop import Loop
    from curiosft_cli.train.optim import cosine_lr
    from curiosft_cli.train.start import check_supplied, start_accelerator
    from curiosft_cli.train.teacher import open_teacher

    sft = config.sft
    accelerator = start_accelerator(config.run.seed)
    console = Console(stage.log_file, enabled=accelerator.is_main_process)
    objective = SFT_OBJECTIVES[sft.objective].bind(**sft.params)
    check_supplied(objective, sft.objective, SUPPLIED)
    loop = Loop.open(config, sft, stage, resolve_checkpoint(sft.init, config), accelerator)
    rows = encode_data(config, stage, loop, console)
    teacher = open_teacher(sft.teacher, loop.student_module) if "teacher_logp" in objective.needs else None
    step = loop.resume(teacher)
    metrics = Metrics(stage.metrics_file, step, accelerator) if accelerator.is_main_process else None
    total = sft.epochs * steps_per_epoch(len(rows), sft.batch_size)
    total = min(total, sft.max_steps or total)
    console.say(f"sft: {sft.objective}, {len(rows)} rows, steps {step} to {total}, {loop.describe()}")

    while step < total:
        started = time.monotonic()
        chosen = [rows[index] for index in step_rows(len(rows), sft.batch_size, config.run.seed, step)]
        packs = loop.packs(chosen, sft.max_tokens_per_batch)
        totals = loop.totals(chosen, packs, sft.max_response_length)
        for number, pack in enumerate(packs, start=1):
            extra = teacher.extra(pack, loop.stats) if teacher else {}
            loop.accumulate(pack, objective, extra, totals, last=number == len(packs))
        rate = cosine_lr(
            step,
            peak=sft.learning_rate,
            warmup_steps=sft.warmup_steps,
            total_steps=total,
            min_ratio=sft.min_lr_ratio,
        )
        values = loop.update(rate)
        step += 1
        if teacher:
            teacher.update(step)

        seconds = time.monotonic() - started
        tokens = sum(len(row) for row in chosen)
        values |= {
            "train/epoch": step / steps_per_epoch(len(rows), sft.batch_size),
            "time/step_s": seconds,
            "tokens/s": tokens / seconds,
        }
        if metrics and (step % config.log.every == 0 or step == total):
            metrics.log(step, values)
        console.progress(
            step, total, f"sft: loss {values['train/loss_nats']:.3f} nats, {tokens / seconds:.0f} tokens/s"
        )
        if step % sft.save_steps == 0 or step == total:
            loop.save(step, teacher)
    console.close()


def encode_data(config: Config, stage: StageDir, loop: Loop, console: Console) -> list[Row]:
    """Read and tokenise the training data; say what was left out or cut.

    Raises:
        CurioError: no row is left to train on.
    """
    from curiosft_cli.train.encode import PromptFormat, encode_rows

    problems = read_all(config.data, run_dir=stage.path.parent)
    if problems.skipped:
        console.say(f"sft: {len(problems.skipped)} rows could not be read, e.g. {problems.skipped[0]}")
    rows, report = encode_rows(
        loop.tokenizer,
        problems,
        PromptFormat.from_config(config.model),
        config.data.max_prompt_length,
        config.sft.max_response_length,
    )
    for what, ids in (("a prompt that is too long", report.prompt_too_long), ("no response", report.no_response)):
        if ids:
            console.say(f"sft: {len(ids)} rows left out with {what}, e.g. {', '.join(ids[:3])}")
    if report.truncated:
        console.say(f"sft: {report.truncated} responses cut at {config.sft.max_response_length} tokens")
    if not rows:
        raise CurioError(
            f"no row of {', '.join(config.data.train)} can be trained on",
            "Supervised rows need a question and a response that fit data.max_prompt_length.",
        )
    return rows


if __name__ == "__main__":
    run_stage(run)
