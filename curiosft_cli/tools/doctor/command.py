"""`curiosft doctor [CONFIG]`: every check in order, the slow ones last, each line printed when it is known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict

from curiosft_cli.run.errors import MISSING
from curiosft_cli.run.sections import Config
from curiosft_cli.run.text import one_line, show
from curiosft_cli.tools.doctor import machine, services, work
from curiosft_cli.tools.doctor.finding import Asked, Finding

CHECKS: tuple[Callable[[Asked], Iterator[Finding]], ...] = (
    machine.python,
    machine.packages,
    machine.threads,
    machine.disk,
    machine.memory,
    machine.shared_memory,
    machine.open_files,
    services.keys,
    services.hub,
    work.training,
    work.all_reduce,
    services.vllm,
)


def examine(config: Config | None, *, as_json: bool) -> int:
    """Print what is found and return the exit code: 3 if something is missing that is needed, else 0.

    Args:
        config: its `run.stages` decide what is needed. None: the package alone.
        as_json: one object at the end instead of lines.
    """
    asked = Asked(config or Config(), frozenset(config.run.stages) if config else frozenset())
    found: list[Finding] = []
    for check in CHECKS:
        for finding in check(asked):
            found.append(finding)
            if not as_json:
                show(as_text(finding))
    counts = Counter(finding.level for finding in found)
    if as_json:
        show(json.dumps({"stages": sorted(asked.stages), "findings": [asdict(finding) for finding in found]}))
    else:
        needed_by = f"run.stages ({', '.join(config.run.stages)})" if config else "the package alone"
        show(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors for {needed_by}")
    return MISSING if counts["error"] else 0


def as_text(finding: Finding) -> str:
    """One finding as a line, and its fix as a second one."""
    line = one_line(f"{finding.level:8} {finding.name:15} {finding.says}")
    return f"{line}\n{'':24} -> {one_line(finding.fix)}" if finding.fix else line
