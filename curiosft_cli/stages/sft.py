"""Supervised fine-tuning: Algorithm 1 of the paper, and every baseline of its Table 2.

    for each optimizer step:
        take the step's rows, packed                 (the same rows whatever the number of ranks)
        ask for what the objective reads             (the teacher's log pi_tch(y; tau): Eq. 4, 7, 8)
        for each pack:
            student: loss and gradients              (Eq. 1, 5, 6, through the chunked head)
        clip, learning rate, optimizer step
        synchronise the teacher every n steps        (Algorithm 1, lines 16-18)
        look at held-out rows and benchmarks; log; save

Absent from the textbook loop: no padding (rows are packed), no logits tensor (the head walks in chunks), no
average of averages (sums are divided once by the global token count).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from curiosft_cli.data.sources import read_numbered
from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import write_json
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console, Metrics
from curiosft_cli.run.rundir import StageDir, resolve_checkpoint
from curiosft_cli.run.sections import Config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.feed import RowFeed
    from curiosft_cli.train.guards import Guards
    from curiosft_cli.train.loop import Loop


def run(config: Config, stage: StageDir) -> None:
    """Train to the last step, from the newest checkpoint of this stage if there is one."""
    from curiosft_cli.stages.step_evaluation import SampledCurve, asked_between_steps, is_due
    from curiosft_cli.train.batches import steps_per_epoch
    from curiosft_cli.train.heldout import held_out
    from curiosft_cli.train.loop import Loop
    from curiosft_cli.train.optim import cosine_lr
    from curiosft_cli.train.start import check_supplied, start_accelerator
    from curiosft_cli.train.suppliers import SUPPLIED, open_inputs

    sft = config.sft
    accelerator = start_accelerator(config, stage)
    console = Console(stage.log_file, enabled=accelerator.is_main_process)
    objective = SFT_OBJECTIVES[sft.objective].bind(**sft.params)
    check_supplied(objective, sft.objective, SUPPLIED)
    asked, init = asked_between_steps(config, sft), resolve_checkpoint(sft.init, config)
    loop = Loop.open(config, sft, stage, init, accelerator, sft.lora)
    feed = open_data(config, "train", stage, loop, console)
    validation = open_data(config, "validation", stage, loop, console) if config.data.validation else None
    per_epoch = steps_per_epoch(len(feed), sft.batch_size)
    total = min(sft.epochs * per_epoch, sft.max_steps or sft.epochs * per_epoch)

    def packs_of(step: int) -> list[Pack]:
        return loop.packs(feed.rows(step), sft.max_tokens_per_batch)

    inputs = open_inputs(objective, sft, loop, packs_of, total)
    step = loop.resume(inputs)
    guards = open_guards(config)
    guards.load(loop.counters.get("guards", {}))
    curve = SampledCurve(config, sft, asked, loop, str(loop.source or init), stage, console)
    metrics = Metrics(stage.metrics_file, step, accelerator) if accelerator.is_main_process else None
    console.say(f"sft: {sft.objective}, {len(feed)} rows, steps {step} to {total}, {loop.describe()}")

    with curve.engine(sft) as engine:
        while step < total:
            started = time.monotonic()
            with loop.timed("data"):
                chosen, packs = feed.rows(step), packs_of(step)
            with loop.timed("inputs"):
                extras = inputs.supply(step, packs)
            totals = loop.totals(
                chosen, packs, sft.max_response_length, objective, extras, micro_rows=sft.micro_batch_rows
            )
            for place, (pack, extra) in enumerate(zip(packs, extras, strict=True), start=1):
                with loop.timed("inputs"):
                    head_pass = inputs.head_pass(pack)
                loop.accumulate(pack, objective, extra, totals, last=place == len(packs), head_pass=head_pass)
            rate = cosine_lr(
                step,
                peak=sft.learning_rate,
                warmup_steps=sft.warmup_steps,
                total_steps=total,
                min_ratio=sft.min_lr_ratio,
            )
            loop.update(rate)
            step += 1
            with loop.timed("sync"):
                inputs.update(step)

            values = loop.report() | {"train/epoch": step / per_epoch}  # waits for a GPU to finish the step
            seconds, tokens = time.monotonic() - started, sum(len(row) for row in chosen)
            values |= {
                "data/pack_fill": tokens / (len(packs) * loop.ranks * sft.max_tokens_per_batch),
                "data/truncated_rows": sum(row.truncated for row in chosen),
                "time/step_s": seconds,
                "tokens/s": tokens / seconds,
            }
            seen: dict[str, float] = {}
            if is_due(step, sft.eval_steps, total):
                seen = held_out(loop, validation, sft.max_tokens_per_batch) if validation else {}
                seen |= curve.look(engine, step)
            if metrics and (seen or step % config.log.every == 0 or step == total):
                metrics.log(step, values | seen)
            loss = values.get("train/loss_nats", float("nan"))
            console.progress(step, total, f"sft: loss {loss:.3f} nats, {tokens / seconds:.0f} tokens/s")
            for breach in (breaches := guards.check(step, values)):
                console.say(f"sft: warning: {breach}")
            score, stopping = seen.get("eval/avg"), breaches and sft.guards.action == "stop"
            if step % sft.save_steps == 0 or step == total or loop.is_best(score) or stopping:
                loop.save(step, inputs, score, guards=guards.state())
            guards.stop(breaches)
    feed.close()
    if validation:
        validation.close()
    console.close()
    if metrics:
        metrics.close()


def open_data(
    config: Config, key: Literal["train", "validation"], stage: StageDir, loop: Loop, console: Console
) -> RowFeed:
    """Read the rows of `data.KEY`; say, and list in a file, what was left out.

    Raises:
        CurioError: a row is bad and `data.on_bad_row` is "stop", or no row is left to train on.
    """
    from curiosft_cli.train.encode import PromptFormat
    from curiosft_cli.train.feed import open_feed, with_response

    sources: Sequence[str] = getattr(config.data, key)
    listed, style = stage.skipped_rows(key), PromptFormat.from_config(config.model)
    unread: list[str] = []
    silent: list[str] = []
    numbered = read_numbered(config.data, unread, run_dir=stage.path.parent, sources=sources)
    placed = ((f"{sources[source]}, row {number}", row, problem) for source, number, row, problem in numbered)
    feed, too_long = open_feed(
        loop.tokenizer,
        with_response(placed, style, silent if config.data.on_bad_row == "skip" else None),
        style,
        stage.path,
        max_prompt=config.data.max_prompt_length,
        max_response=config.sft.max_response_length,
        batch_size=config.sft.batch_size,
        seed=config.run.seed,
        context=getattr(loop.model.config, "max_position_embeddings", None),
    )
    reasons = {
        "cannot be read": unread,
        "have too long a prompt": too_long,
        "lack a response": silent,
    }
    for reason, rows in reasons.items():
        if rows:
            console.say(f"sft: {len(rows)} rows left out, they {reason}, e.g. {rows[0]}; all in {listed}")
    if any(reasons.values()) and loop.accelerator.is_main_process:
        write_json(listed, reasons)
    if not len(feed):
        raise CurioError(
            f"no row of {', '.join(sources)} can be trained on",
            "Supervised rows need a question and a response that fit data.max_prompt_length.",
        )
    return feed


def open_guards(config: Config) -> Guards:
    """The guard rails of `[sft.guards]`."""
    from curiosft_cli.train.guards import Guards, Rule

    limits = config.sft.guards
    rules = (
        Rule("train/entropy_nats", "the entropy has collapsed", below=limits.entropy_min_nats),
        Rule("train/entropy_nats", "the entropy explodes", above=limits.entropy_max_nats),
        Rule("train/loss_nats", "the loss has a spike", spike=limits.loss_spike),
    )
    return Guards(rules, limits.action, limits.patience, limits.window)


if __name__ == "__main__":
    run_stage(run)
