"""The stages, one by one and in order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curiosft_cli.cli.app import PIPELINE, AsJson, ConfigArgument, Fresh, Overrides, app, launch_arguments, resolve
from curiosft_cli.run.text import one_line, show

if TYPE_CHECKING:
    from curiosft_cli.run.config import Resolved


@app.command(rich_help_panel=PIPELINE)
def rephrase(
    config: ConfigArgument,
    overrides: Overrides = None,
    fresh: Fresh = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print requests, tokens, cost and time; nothing is sent.")
    ] = False,
    as_json: AsJson = False,
    judge: Annotated[
        Path | None, typer.Option("--judge", help="Only judge these rewrites (JSONL with id, post, rewrite).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="JSONL for the verdicts of --judge.")] = None,
    calibrate: Annotated[
        int, typer.Option("--calibrate", min=0, help="Only plant faults in this many posts; count what is found.")
    ] = 0,
    retry_refused: Annotated[
        bool, typer.Option("--retry-refused", help="When it is complete: ask again for what was refused.")
    ] = False,
    decisions: Annotated[
        Path | None, typer.Option("--decisions", help="Apply these decisions, which the review page exported.")
    ] = None,
) -> None:
    """Clean the questions of a data set through an OpenAI-compatible API."""
    if judge or out:
        from curiosft_cli.stages.rephrase.pairs import judge_pairs

        show(judge_pairs(resolve(config, overrides).config, judge, out))
        return
    if calibrate:
        from curiosft_cli.stages.rephrase.calibrate import calibrate as measure

        show(measure(resolve(config, overrides).config, calibrate))
        return
    if dry_run:
        from curiosft_cli.stages.rephrase.plan import plan_rephrase

        show(plan_rephrase(resolve(config, overrides).config, as_json=as_json))
        return
    resolved = resolve(config, overrides)
    if decisions or retry_refused:
        from curiosft_cli.stages.rephrase.reopen import reopen

        reopen(resolved.config, decisions, retry_refused=retry_refused)
    _run_stages(resolved, ("rephrase",), fresh)


@app.command(rich_help_panel=PIPELINE)
def sft(
    config: ConfigArgument,
    overrides: Overrides = None,
    fresh: Fresh = False,
    prove_resume: Annotated[
        bool, typer.Option("--prove-resume", help="Only show that a killed run resumes to the same weights.")
    ] = False,
) -> None:
    """Supervised fine-tuning with any objective, launched through accelerate."""
    if prove_resume:
        from curiosft_cli.tools.prove_resume import prove_resume as prove

        proof = prove(config, overrides or [], launch_arguments)
        show(f"uninterrupted  {proof.whole}\nkilled         {proof.halves}\nequal")
        return
    _run_stages(resolve(config, overrides), ("sft",), fresh)


@app.command(rich_help_panel=PIPELINE)
def rl(
    config: ConfigArgument,
    overrides: Overrides = None,
    fresh: Fresh = False,
    preflight: Annotated[bool, typer.Option("--preflight", help="Only check that a reward can be right.")] = False,
) -> None:
    """Reinforcement learning with verifiable rewards, launched through accelerate."""
    if preflight:
        from curiosft_cli.tools.pipeline import run_preflight

        return run_preflight(resolve(config, overrides))
    _run_stages(resolve(config, overrides), ("rl",), fresh)


@app.command("eval", rich_help_panel=PIPELINE)
def evaluate(
    config: ConfigArgument,
    overrides: Overrides = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
    generations: Annotated[
        Path | None,
        typer.Option("--from-generations", help="Grade these samples (JSONL, .zst) or this eval folder; no model."),
    ] = None,
) -> None:
    """Sample and grade benchmarks for one or more checkpoints."""
    from curiosft_cli.tools.regrade import regrade
    from curiosft_cli.tools.results_report import print_results

    resolved = resolve(config, overrides)
    if generations is not None:
        regrade(resolved, generations, fresh=fresh)
    else:
        _run_stages(resolved, ("eval",), fresh)
    print_results(resolved.config, as_json=as_json)


@app.command("run", rich_help_panel=PIPELINE)
def run_all(config: ConfigArgument, overrides: Overrides = None, fresh: Fresh = False) -> None:
    """Run the stages of run.stages in order; complete ones are skipped."""
    resolved = resolve(config, overrides)
    _run_stages(resolved, resolved.config.run.stages, fresh)
    if "eval" in resolved.config.run.stages:
        from curiosft_cli.tools.results_report import print_results

        print_results(resolved.config, as_json=False)


@app.command(rich_help_panel=PIPELINE)
def quickstart(overrides: Overrides = None, fresh: Fresh = False) -> None:
    """The whole pipeline on a small real model on this machine, in minutes."""
    from curiosft_cli.tools.quickstart import quickstart as start

    start(overrides or [], fresh=fresh)


def _run_stages(resolved: Resolved, stages: tuple[str, ...], fresh: bool) -> None:
    from curiosft_cli.run.launch import is_first
    from curiosft_cli.tools.pipeline import run_stages
    from curiosft_cli.tools.stage_summary import next_command

    run_stages(resolved, stages, fresh=fresh, accelerate_arguments=launch_arguments)
    if is_first(launch_arguments):
        command = next_command(stages[-1], resolved, launch_arguments)
        show(one_line(f"next: {command}"), sys.stderr)
