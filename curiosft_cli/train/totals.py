"""The totals of one update over all packs and ranks, from which the reductions take their divisors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from curiosft_cli.objectives.reduction import Totals

if TYPE_CHECKING:
    from torch import Tensor

    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.encode import Row


def count_totals(
    rows: Sequence[Row],
    packs: Sequence[Pack],
    max_length: int,
    objective: BoundObjective,
    extras: Sequence[Mapping[str, Tensor]],
    micro_rows: int = 1,
    everywhere: Callable[[list[int]], list[int]] = lambda counts: counts,
) -> Totals:
    """Count the update that `rows` (of all ranks) make up.

    Args:
        packs: this rank's packs of them, at least one.
        max_length: the configured longest response in tokens.
        extras: what the objective reads, for each pack; its masks are counted.
        micro_rows: rows of a micro-batch in `micro_token_mean`.
        everywhere: sums numbers over the ranks.
    """
    names = sorted(name for name in objective.needs & extras[0].keys() if not extras[0][name].dtype.is_floating_point)
    counted = [(pack, extra) for pack, extra in zip(packs, extras, strict=True) if pack.counted]
    tokens = [sum(int(extra[name].sum()) for _, extra in counted) for name in names]
    sequences = [sum(len(pack.sequence[extra[name]].unique()) for pack, extra in counted) for name in names]
    summed = everywhere(tokens + sequences)
    return Totals(
        tokens=sum(len(row.response_ids) for row in rows),
        sequences=sum(bool(row.response_ids) for row in rows),
        micro_batches=[
            sum(len(row.response_ids) for row in rows[start : start + micro_rows])
            for start in range(0, len(rows), micro_rows)
        ],
        micro_rows=micro_rows,
        max_length=max_length,
        masks=dict(zip(names, summed[: len(names)], strict=True)),
        mask_sequences=dict(zip(names, summed[len(names) :], strict=True)),
        all_tokens=sum(len(row) for row in rows),
    )
