"""Guard rails: what a run's metrics must not do for long, and what happens when they do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, NamedTuple

from curiosft_cli.run.errors import GUARD, CurioError

Action = Literal["off", "warn", "stop"]


@dataclass(frozen=True)
class Rule:
    """A metric and the range that it should stay in.

    Attributes:
        metric: key of the metrics, e.g. "train/entropy_nats"; a step that lacks it is passed over.
        below: lowest legal value, or None.
        above: highest legal value, or None.
        spike: highest legal multiple of the median of the last steps, or None. Only positive values are checked.
        meaning: what it says about the run, for the message.
        action: takes the place of that of `Guards`.
        cause: gets the metrics of the step, and gives the likely cause and what to do about it.
    """

    metric: str
    meaning: str
    below: float | None = None
    above: float | None = None
    spike: float | None = None
    action: Action | None = None
    cause: Callable[[Mapping[str, float]], tuple[str, str]] | None = None

    def broken(self, value: float, usual: float | None) -> str:
        """Why `value` is out of range, given the `usual` one; "" when it is not."""
        if not math.isfinite(value):
            return "is not finite"
        if self.below is not None and value < self.below:
            return f"is below {self.below:g}"
        if self.above is not None and value > self.above:
            return f"is above {self.above:g}"
        if self.spike is not None and usual is not None and usual > 0 and value > self.spike * usual:
            return f"is more than {self.spike:g} times its usual {usual:.4g}"
        return ""


class Breach(NamedTuple):
    """A rule that was broken for long: the message, the next step, and whether the run must stop."""

    says: str
    fix: str
    stops: bool


def stop(found: Sequence[Breach]) -> None:
    """End the run if one of these must; the caller has saved a checkpoint.

    Raises:
        CurioError: exit code 4.
    """
    for breach in found:
        if breach.stops:
            raise CurioError(breach.says, f"The last checkpoint is complete. {breach.fix}", GUARD)


@dataclass
class Guards:
    """Counts the steps in a row that break each rule.

    Attributes:
        rules: what is watched.
        action: "warn" prints a line, "stop" ends the run, "off" checks nothing; a rule may have another one.
        patience: steps in a row before anything happens.
        window: steps whose median is the usual value of a `spike` rule.
    """

    rules: Sequence[Rule]
    action: Action
    patience: int
    window: int
    _in_a_row: dict[str, int] = field(default_factory=dict)
    _recent: dict[str, list[float]] = field(default_factory=dict)

    def check(self, step: int, values: Mapping[str, float]) -> list[Breach]:
        """Check the metrics of one step; return what was broken, each once per uninterrupted breach.

        A breach that stops the run is returned for as long as it lasts: a run that is started again stops again.
        """
        found: list[Breach] = []
        for rule in self.rules:
            action = rule.action or self.action
            if action == "off" or rule.metric not in values:
                continue
            key = f"{rule.metric}: {rule.meaning}"
            value, recent = values[rule.metric], self._recent.setdefault(key, [])
            why = rule.broken(value, median(recent) if len(recent) >= self.window else None)
            self._in_a_row[key] = self._in_a_row.get(key, 0) + 1 if why else 0
            lasting = action == "stop" and self._in_a_row[key] > self.patience
            if lasting or self._in_a_row[key] == self.patience:
                says = f"{rule.meaning}: {rule.metric} = {value:.4g} {why} ({self.patience} steps, to {step})"
                cause, fix = rule.cause(values) if rule.cause else ("", "Change the settings, or only warn.")
                found.append(Breach(f"{says}; {cause}" if cause else says, fix, action == "stop"))
            if not why:
                recent.append(value)
                del recent[: -self.window]
        return found

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on counting (JSON values)."""
        return {"in_a_row": self._in_a_row, "recent": self._recent}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` gave."""
        self._in_a_row = dict(state.get("in_a_row", {}))
        self._recent = {name: list(values) for name, values in state.get("recent", {}).items()}
