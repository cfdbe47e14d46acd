"""`curiosft plan`: from the arguments to a table, or to a configuration with the choices that make it fit."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.device import GIB
from curiosft_cli.run.errors import GUARD
from curiosft_cli.run.text import one_line, show
from curiosft_cli.tools.plan.machines import CPU, Setting, machine_named

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Config
    from curiosft_cli.tools.plan.estimate import StagePlan
    from curiosft_cli.tools.plan.probe import Probe

PAPER_ROWS = 45_824
"""3 epochs of 179 batches of 256: the paper's training set."""
MODELS = Path(__file__).with_name("models.json")


def run(
    reference: str,
    overrides: list[str],
    *,
    gpus: int,
    gpu: str,
    nodes: int,
    mfu: float | None,
    rows: int | None,
    prompt_tokens: int,
    response_tokens: int,
    write: bool,
    probe: bool,
    as_json: bool,
) -> int:
    """Print the plan; return the exit code: 0 if every stage fits, else 4."""
    from curiosft_cli.run.config import load
    from curiosft_cli.tools.plan.choices import fitting, target_of, write_choices
    from curiosft_cli.tools.plan.estimate import plan_stages

    config = load(reference, overrides).config
    shape = read_shape(config)
    machine = machine_named(gpu, mfu, _cpu_dtype(config) if gpu == CPU else None)
    setting = Setting(machine, gpu, gpus, nodes, rows or _rows(config), prompt_tokens, response_tokens)
    target = target_of(reference) if write else None
    measured = None
    if probe:
        from curiosft_cli.tools.plan.probe import calibrated, probe_sft

        measured = probe_sft(reference, overrides, shape, setting)
        setting = calibrated(setting, measured)
    if target:
        choices, plans = fitting(reference, overrides, shape, setting)
        write_choices(target, reference, overrides, choices)
        show(f"wrote {target}", sys.stderr)
    else:
        plans = plan_stages(config, shape, setting)
    if as_json:
        stages = [asdict(plan) | {"fits": plan.fits} for plan in plans]
        show(json.dumps({"stages": stages, "probe": asdict(measured) if measured else None}))
    else:
        show(as_text(config, setting, plans))
        if measured:
            show(_probe_text(measured, plans))
    return 0 if all(plan.fits for plan in plans) else GUARD


def read_shape(config: Config) -> Any:
    """The transformers configuration of `model.path`: a shipped description, or a config.json. No weights are read.

    Raises:
        CurioError: there is none.
    """
    from transformers import AutoConfig

    from curiosft_cli.train.load import load_config

    known = json.loads(MODELS.read_text(encoding="utf-8"))
    if config.model.path in known:
        return AutoConfig.for_model(**known[config.model.path])
    return load_config(config.model.path, config.model)


def as_text(config: Config, setting: Setting, plans: list[StagePlan], shown: float = 0.005) -> str:
    """A block of lines for each stage; a term that is less than `shown` of the whole is left out."""
    where = f"{setting.nodes} x {setting.gpus} x {setting.name}"
    lines = [
        f"{config.model.path} on {where}; {setting.rows:,} rows of {setting.prompt_tokens} + "
        f"{setting.response_tokens} tokens are assumed (--rows, --prompt-tokens, --response-tokens); "
        "a stage with lower limits of prompts or responses is planned with those"
    ]
    for plan in plans:
        verdict = "fits" if plan.fits else "DOES NOT FIT"
        total = sum(plan.terms.values())
        lines += ["", f"{plan.stage}: {verdict}: {total / GIB:.1f} of {plan.memory / GIB:.1f} GiB ({plan.phase})"]
        lines += [
            f"  {name:<22}{size / GIB:>9.2f} GiB"
            for name, size in sorted(plan.terms.items(), key=lambda item: -item[1])
            if abs(size) > shown * total
        ]
        if plan.lower:
            lines.append(f"  first to change: {plan.lower}")
        speed = f"{setting.machine.reached:.0%} of the peak" if setting.name != CPU else "the speed of this CPU"
        step = f"{plan.step_s:.1f} s a step at {speed}, " if plan.step_s else ""
        lines.append(f"  {plan.flops / 1e15:.3g} PFLOP, {step}{plan.total_s / 3600:.1f} h in all")
        if plan.steps:
            end, peak = (f"{size / 1e9:,.0f}" for size in (plan.disk, plan.disk_peak))
            lines.append(f"  {plan.steps:,} steps; disk {end} GB at the end, {peak} while it saves")
    return "\n".join(one_line(line) for line in lines)


def _probe_text(measured: Probe, plans: list[StagePlan]) -> str:
    """What the real steps took, beside their prediction, and what follows for the whole stage."""
    [plan] = [plan for plan in plans if plan.stage == "sft"]
    took = (
        f"\n{measured.steps} real steps of sft, {measured.tokens:.0f} tokens each: "
        f"{measured.peak_gib:.2f} GiB in a process, {measured.step_s:.1f} s a step"
    )
    if measured.predicted_gib is None:
        hours = measured.step_s * plan.steps / 3600
        return f"{took}\nat this speed the {plan.steps:,} steps take {hours:.1f} h; the plan is for other devices"
    return (
        f"{took}\npredicted for these steps: {measured.predicted_gib:.2f} GiB, {measured.predicted_s:.1f} s; "
        "sft is planned with the difference in memory and the ratio of the times"
    )


def _rows(config: Config) -> int:
    """Rows of the training data, where they can be counted without a download."""
    total = 0
    for source in config.data.train:
        if source.startswith("arithmetic:"):
            total += int(source.split(":")[2])
        elif (file := Path(source)).suffix == ".jsonl" and file.is_file():
            with file.open("rb") as lines:
                total += sum(1 for line in lines if line.strip())
        else:
            return config.data.rows or PAPER_ROWS
    return min(total, config.data.rows or total)


def _cpu_dtype(config: Config) -> Any:
    from curiosft_cli.train.load import compute_dtype

    settings = config.sft if "sft" in config.run.stages else config.rl
    return compute_dtype(settings.precision, CPU)
