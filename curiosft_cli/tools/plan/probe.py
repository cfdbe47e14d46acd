"""`--probe`: three real steps of sft, in a run folder of their own that is deleted."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from curiosft_cli.run.config import load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_jsonl
from curiosft_cli.tools.pipeline import run_stages
from curiosft_cli.tools.plan.choices import with_choices


def probe_sft(reference: str, overrides: list[str], steps: int = 3) -> dict[str, float]:
    """Train `steps` steps with the real command, and read its metrics.

    Returns:
        peak_gib: most memory of a process. step_s: median seconds of the steps after the first, which warms up.
        tokens: of a step, on average. steps: how many.

    Raises:
        CurioError: the configuration has no sft stage, or the training stopped with a message.
    """
    if "sft" not in load(reference, overrides).config.run.stages:
        raise CurioError("--probe runs sft, and run.stages has no sft", "Leave --probe out.")
    with tempfile.TemporaryDirectory(prefix="curiosft-probe-") as folder:
        own = [f"run.root={folder}", "run.name=probe", f"sft.max_steps={steps}", "sft.eval_benchmarks=[]"]
        run_stages(load(reference, with_choices(overrides, own)), ("sft",))
        rows = list(read_jsonl(Path(folder) / "probe" / "sft" / "metrics.jsonl"))
    return {
        "peak_gib": max(row["memory/peak_gib"] for row in rows),
        "step_s": statistics.median(row["time/step_s"] for row in rows[1:] or rows),
        "tokens": statistics.mean(row["tokens/s"] * row["time/step_s"] for row in rows),
        "steps": len(rows),
    }
