"""`--probe`: three real steps of sft, in a run folder of their own that is deleted, and their prediction."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.config import load
from curiosft_cli.run.device import GIB
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_jsonl
from curiosft_cli.tools.pipeline import run_stages
from curiosft_cli.tools.plan.choices import with_choices
from curiosft_cli.tools.plan.estimate import plan_sft
from curiosft_cli.tools.plan.machines import CPU, Setting
from curiosft_cli.train.size import model_size

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Config


@dataclass(frozen=True)
class Probe:
    """What the steps took.

    Attributes:
        steps: how many.
        tokens: of a step, on average.
        peak_gib: most memory of a process.
        step_s: median seconds of the steps after the first, which warms up.
        predicted_gib: for the largest pack of these steps; None where the plan is for another kind of device.
        predicted_s: for a step of so many tokens; None alike.
    """

    steps: int
    tokens: float
    peak_gib: float
    step_s: float
    predicted_gib: float | None = None
    predicted_s: float | None = None


def probe_sft(reference: str, overrides: list[str], shape: Any, setting: Setting, steps: int = 3) -> Probe:
    """Train `steps` steps with the real command, read its metrics, and predict the same steps.

    Args:
        reference: of the configuration; `overrides` alike.
        shape: transformers configuration of the model.
        setting: what is planned for.
        steps: how many.

    Raises:
        CurioError: the configuration has no sft stage, or the training stopped with a message.
    """
    if "sft" not in load(reference, overrides).config.run.stages:
        raise CurioError("--probe runs sft, and run.stages has no sft", "Leave --probe out.")
    with tempfile.TemporaryDirectory(prefix="curiosft-probe-") as folder:
        own = [f"run.root={folder}", "run.name=probe", f"sft.max_steps={steps}", "sft.eval_benchmarks=[]"]
        resolved = load(reference, with_choices(overrides, own))
        run_stages(resolved, ("sft",))
        stage = Path(folder) / "probe" / "sft"
        rows = list(read_jsonl(stage / "metrics.jsonl"))
        done = Probe(
            len(rows),
            statistics.mean(row["tokens/s"] * row["time/step_s"] for row in rows),
            max(row["memory/peak_gib"] for row in rows),
            statistics.median(row["time/step_s"] for row in rows[1:] or rows),
        )
        return predicted(done, resolved.config, shape, setting, stage)


def predicted(done: Probe, config: Config, shape: Any, setting: Setting, stage: Path) -> Probe:
    """The same, with the prediction for its packs where the plan is for devices of the kind that it ran on."""
    import torch

    gpus = torch.cuda.device_count()
    if bool(gpus) == (setting.name == CPU):
        return done
    ranks = config.launch.processes or max(1, gpus)
    plan = plan_sft(config, shape, model_size(shape), with_packs(config, replace(setting, gpus=ranks, nodes=1), stage))
    return replace(done, predicted_gib=sum(plan.terms.values()) / GIB, predicted_s=plan.step_s)


def with_packs(config: Config, setting: Setting, stage: Path) -> Setting:
    """The setting with the rows of the largest pack of the first steps, and their average lengths."""
    from curiosft_cli.stages.sft import read_feed
    from curiosft_cli.train.batches import partition
    from curiosft_cli.train.load import load_tokenizer

    feed, _ = read_feed(config, "train", load_tokenizer(config.model.path, config.model), stage, None)
    steps = [feed.rows(step) for step in range(config.sft.max_steps or 1)]
    feed.close()
    lengths = [[(len(row.prompt_ids), len(row.response_ids)) for row in rows] for rows in steps]
    packs = [
        tuple(rows[member] for member in members)
        for rows in lengths
        for members in partition([sum(row) for row in rows], config.sft.max_tokens_per_batch, setting.ranks)
    ]
    every = [row for rows in lengths for row in rows]
    prompt, response = (round(statistics.mean(part)) for part in zip(*every, strict=True))
    largest = max(packs, key=lambda pack: sum(map(sum, pack)))
    return replace(setting, prompt_tokens=prompt, response_tokens=response, pack=largest)


def calibrated(setting: Setting, probe: Probe) -> Setting:
    """The setting with what the steps took beyond their prediction."""
    if probe.predicted_gib is None or probe.predicted_s is None:
        return setting
    beside = (probe.peak_gib - probe.predicted_gib) * GIB
    return replace(setting, beside=beside, slower=probe.step_s / probe.predicted_s)
