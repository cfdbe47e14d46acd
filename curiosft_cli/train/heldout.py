"""A look at held-out rows: loss, accuracy and entropy of the expert tokens, without a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curiosft_cli.train.batches import steps_per_epoch
from curiosft_cli.train.stats import StepStats

if TYPE_CHECKING:
    from curiosft_cli.train.feed import RowFeed
    from curiosft_cli.train.loop import Loop


def held_out(loop: Loop, feed: RowFeed, max_tokens: int) -> dict[str, float]:
    """Means over all tokens of all rows of `feed`, on all ranks: nats, and shares of 1."""
    stats = StepStats()
    student = loop.student_module
    student.eval()
    for window in range(steps_per_epoch(len(feed), feed.batch_size)):
        for pack in loop.packs(feed.rows(window), max_tokens):
            rows = student.scored(pack, entropy=True)
            if pack.counted and rows.entropy is not None:
                stats.add("loss_nats", -rows.logp)
                stats.add("mean_token_probability", rows.logp.exp())
                stats.add("entropy_nats", rows.entropy)
                stats.add_whole("entropy", rows.entropy)
    student.train()
    seen, _ = stats.reduce(loop.accelerator)
    return {f"eval/{name}": value for name, value in seen.items()}
