"""One line of the doctor, and what it is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from curiosft_cli.run.sections import Config

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        name: of the check.
        level: ok; warning: it works, but not well, or something that is not needed here is missing; error: what is
            needed is missing.
        says: what was found.
        fix: the next step, "" if it is ok.
    """

    name: str
    level: Level
    says: str
    fix: str = ""


class Asked(NamedTuple):
    """The configuration, and the stages that must run. Without a configuration these are none."""

    config: Config
    stages: frozenset[str]

    def level(self, *stages: str) -> Level:
        """How bad it is that something is missing which only these stages need."""
        return "error" if self.stages & set(stages) else "warning"
