"""Supervised fine-tuning: Algorithm 1 of the paper, and every baseline of its Table 2.

    for each optimizer step:
        take the step's rows, packed                 (the same rows whatever the number of ranks)
        supply what the objective reads              (the teacher's log pi_tch(y; tau): Eq. 4, 7, 8)
        for each pack:
            student: loss and gradients              (Eq. 1, 5, 6, through the chunked head)
        clip, learning rate, optimizer step
        synchronise the teacher every n steps        (Algorithm 1, lines 16-18)
        evaluate held-out rows and benchmarks; log; save

Absent from the textbook loop: no padding (rows are packed), no logits tensor (the head works in chunks), no
average of averages (sums are divided once by the global token count).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from curiosft_cli.data.sources import read_numbered
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import write_json
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.objective_file import sft_objective
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config, Sft

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.stages.bookkeeping import Bookkeeping
    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.feed import RowFeed
    from curiosft_cli.train.guards import Guards

PROGRESS = "loss {train/loss_nats:.3f}, entropy {train/entropy_nats:.3f} nats, {tokens/s:.0f} tokens/s"


def run(config: Config, stage: StageDir) -> None:
    """Train to the last step, from the newest checkpoint of this stage if there is one."""
    from curiosft_cli.stages.bookkeeping import Bookkeeping
    from curiosft_cli.train.batches import steps_per_epoch
    from curiosft_cli.train.suppliers import SUPPLIED, open_suppliers

    sft = config.sft
    own = sft_objective(sft.objective, sft.objective_sha256).objective
    with Bookkeeping.open(config, "sft", sft, stage, own, SUPPLIED) as book:
        loop, objective = book.loop, book.objective
        feed = open_data(book, "train")
        validation = open_data(book, "validation") if config.data.validation else None
        per_epoch = steps_per_epoch(len(feed), sft.batch_size, config.data.drop_last)
        total = min(sft.epochs * per_epoch, sft.max_steps or sft.epochs * per_epoch)

        def packs_of(step: int) -> list[Pack]:
            return loop.packs(feed.rows(step), sft.max_tokens_per_batch)

        suppliers = open_suppliers(objective, sft, loop, packs_of, total)
        book.begin(total, f"{len(feed)} rows", open_guards(config), PROGRESS, suppliers, validation)
        with book.evaluation.engine() as engine:
            for step in book.steps():
                with loop.timed("data"):
                    rows, packs = feed.rows(step), packs_of(step)
                with loop.timed("inputs"):
                    extras = suppliers.supply(step, packs)
                totals = loop.totals(rows, packs, sft.max_response_length, objective, extras, sft.micro_batch_rows)
                for place, (pack, extra) in enumerate(zip(packs, extras, strict=True), start=1):
                    with loop.timed("inputs"):
                        head_pass = suppliers.head_pass(pack)
                    loop.accumulate(pack, objective, extra, totals, last=place == len(packs), head_pass=head_pass)
                loop.update(learning_rate(sft, step, total))
                with loop.timed("sync"):
                    suppliers.update(step + 1)
                tokens = sum(len(row) for row in rows)
                values = {
                    "train/epoch": (step + 1) / per_epoch,
                    "data/pack_fill": tokens / (len(packs) * loop.ranks * sft.max_tokens_per_batch),
                    "data/truncated_rows": sum(row.truncated for row in rows),
                }
                book.after(step + 1, values, engine, tokens)


def learning_rate(sft: Sft, step: int, total: int) -> float:
    """Of the 0-based step of a training of `total` steps."""
    from curiosft_cli.train.optim import cosine_lr

    return cosine_lr(
        step,
        peak=sft.learning_rate,
        warmup_steps=sft.warmup_steps,
        total_steps=sft.cosine_length * total,
        min_ratio=sft.min_lr_ratio,
        warmup_start=sft.warmup_start,
    )


def open_data(book: Bookkeeping, key: Literal["train", "validation"]) -> RowFeed:
    """Read the rows of `data.KEY`. Rows that are left out are counted on the console and listed in a file.

    Raises:
        CurioError: a row is bad and `data.on_bad_row` is "stop", or no row is left to train on.
    """
    config, stage, loop = book.config, book.stage, book.loop
    sources: Sequence[str] = getattr(config.data, key)
    listed, context = stage.skipped_rows(key), getattr(loop.model.config, "max_position_embeddings", None)
    feed, reasons = read_feed(config, key, loop.tokenizer, stage.path, context)
    for reason, rows in reasons.items():
        if rows:
            book.say(f"{len(rows)} rows left out, they {reason}, e.g. {rows[0]}; all in {listed}")
    if any(reasons.values()) and loop.accelerator.is_main_process:
        write_json(listed, reasons)
    if not len(feed):
        raise CurioError(
            f"no row of {', '.join(sources)} can be trained on",
            "Supervised rows need a question and a response that fit data.max_prompt_length.",
        )
    book.resources.callback(feed.close)
    return feed


def read_feed(
    config: Config,
    key: Literal["train", "validation"],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    context: int | None,
) -> tuple[RowFeed, dict[str, list[str]]]:
    """The rows of `data.KEY`, and those that are left out, by reason.

    Args:
        folder: of the stage; it has the rows while the feed is open.
        context: of the model, tokens; None does not check it.

    Raises:
        CurioError: a row is bad and `data.on_bad_row` is "stop", or is longer than the context.
    """
    from curiosft_cli.train.encode import PromptFormat
    from curiosft_cli.train.feed import open_feed, with_response

    sources: Sequence[str] = getattr(config.data, key)
    style = PromptFormat.from_config(config.model)
    unread: list[str] = []
    silent: list[str] = []
    numbered = read_numbered(config.data, unread, run_dir=folder.parent, sources=sources)
    placed = ((f"{sources[source]}, row {number}", row, problem) for source, number, row, problem in numbered)
    feed, too_long = open_feed(
        tokenizer,
        with_response(placed, style, silent if config.data.on_bad_row == "skip" else None),
        style,
        folder,
        max_prompt=config.data.max_prompt_length,
        max_response=config.sft.max_response_length,
        batch_size=config.sft.batch_size,
        seed=config.run.seed,
        drop_last=config.data.drop_last and key == "train",
        context=context,
    )
    return feed, {"cannot be read": unread, "have too long a prompt": too_long, "lack a response": silent}


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
