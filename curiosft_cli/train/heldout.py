"""Loss, probability and entropy without a gradient: of held-out rows, or of sampled completions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from curiosft_cli.train.batches import steps_per_epoch
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.stats import StepStats

if TYPE_CHECKING:
    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.feed import RowFeed
    from curiosft_cli.train.loop import Loop


def held_out(loop: Loop, feed: RowFeed, max_tokens: int) -> dict[str, float]:
    """`evaluate_packs` on all rows of `feed`, under `eval/`."""
    windows = (feed.rows(window) for window in range(steps_per_epoch(len(feed), feed.batch_size)))
    seen = evaluate_packs(loop, (pack for rows in windows for pack in loop.packs(rows, max_tokens)))
    return {f"eval/{name}": value for name, value in seen.items()}


def evaluate_packs(loop: Loop, packs: Iterable[Pack]) -> dict[str, float]:
    """Means over the supervised tokens of all ranks' packs: nats, and shares of 1."""
    stats = StepStats()
    with loop.evaluating():
        for pack in packs:
            rows = loop.student_module.scored(pack, HeadPass(entropy=True))
            if pack.counted and rows.entropy is not None:
                stats.add("loss_nats", -rows.logp)
                stats.add("mean_token_probability", rows.logp.exp())
                stats.add("entropy_nats", rows.entropy)
                stats.add_whole("entropy", rows.entropy)
    seen, _ = stats.reduce(loop.accelerator)
    return seen
