"""From scores and losses of checkpoints to a recommendation: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from curiosft_cli.evaluation.metrics import no_signal, pass_at_k, standard_error
from curiosft_cli.evaluation.summary import PERCENT
from curiosft_cli.tools.choose.evidence import Score

Key = tuple[str, str]
"""(benchmark, id of a question)"""


@dataclass(frozen=True)
class Assessment:
    """What is known about one checkpoint; None where nobody measured it. Scores and shares are in percent.

    Attributes:
        checkpoint: its reference.
        avg: Avg@k.
        passed: Pass@G, G being the group size of rl.
        silent: share of the questions whose group gives GRPO no signal: none or all of G rollouts are right.
        held_out_nats: loss on held-out rows.
        entropy_nats: of the 20 % of the tokens that have the highest one.
        each: Pass@G of each question, fractions.
    """

    checkpoint: str
    avg: float | None
    passed: float | None
    silent: float | None
    held_out_nats: float | None
    entropy_nats: float | None
    each: Mapping[Key, float] = field(default_factory=dict, repr=False)


def row_of(
    checkpoint: str, scores: Mapping[Key, Score], group: int, held_out_nats: float | None, entropy_nats: float | None
) -> Assessment:
    """Compute the columns that come from samples. Pass@G and the share without a signal need G samples a question.

    Avg@k and Pass@G are of the answers alone; the signal is that of the strict score, which is the reward.
    """
    sampled = scores if all(score.samples >= group for score in scores.values()) else {}
    each = {key: pass_at_k(s.samples, round(s.answer * s.samples), group) for key, s in sampled.items()}
    silent = {key: no_signal(s.samples, round(s.strict * s.samples), group) for key, s in sampled.items()}
    avg = _mean({key: score.answer for key, score in scores.items()})
    return Assessment(checkpoint, avg, _mean(each), _mean(silent), held_out_nats, entropy_nats, each)


def recommend(rows: Sequence[Assessment], group: int) -> tuple[str | None, str]:
    """The checkpoint to start from, and why; None where nothing that predicts it was measured.

    The highest Pass@G. Of those within one standard error of it: the lowest held-out loss, or the fewest questions
    without a signal where a loss is missing. Without any Pass@G: the lowest held-out loss.
    """
    passed = [row for row in rows if row.passed is not None]
    lost = [row for row in rows if row.held_out_nats is not None]
    if not passed and len(lost) < 2:
        return None, f"no recommendation: neither Pass@{group} nor the held-out loss of two checkpoints is known."
    if not passed:
        best = min(lost, key=_held_out)
        return best.checkpoint, f"start from {best.checkpoint}: the lowest held-out loss, {_held_out(best):.3f} nats."
    top = max(passed, key=_passed)
    close = [row for row in passed if _passed(top) - _passed(row) <= _error(top, row)]
    best, why = top, f"the highest Pass@{group}, {_passed(top):.1f} %"
    if len(close) > 1:
        if all(row in lost for row in close):
            best = min(close, key=_held_out)
            why = f"it has the lowest held-out loss, {_held_out(best):.3f} nats"
        else:
            best = min(close, key=_silent)
            why = f"it has the fewest questions without a signal, {_silent(best):.1f} %"
        why += f", of the {len(close)} checkpoints whose Pass@{group} is within one standard error of the highest"
    by_avg = max(passed, key=lambda row: row.avg or 0.0)
    also = "" if by_avg is best else f" Avg@k alone would choose {by_avg.checkpoint}; it predicts rl badly."
    return best.checkpoint, f"start from {best.checkpoint}: {why}.{also}"


def _mean(values: Mapping[Key, float]) -> float | None:
    """The plain mean over benchmarks of the means over their questions, in percent."""
    benchmarks: dict[str, list[float]] = {}
    for (benchmark, _), value in values.items():
        benchmarks.setdefault(benchmark, []).append(value)
    return PERCENT * fmean(map(fmean, benchmarks.values())) if benchmarks else None


def _error(top: Assessment, row: Assessment) -> float:
    """One standard error of the difference of two Pass@G over the same questions, in percent; 0 for one question."""
    differences = [top.each[key] - row.each[key] for key in top.each]
    return PERCENT * standard_error(differences) if len(differences) > 1 else 0.0


def _passed(row: Assessment) -> float:
    return row.passed or 0.0


def _silent(row: Assessment) -> float:
    return row.silent or 0.0


def _held_out(row: Assessment) -> float:
    return row.held_out_nats or 0.0
