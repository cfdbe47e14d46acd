"""The `curiosft` command: its options, help texts and exit codes.

This module imports typer, the standard library and `show` only, so that `--help` is fast. Each command imports its own
work.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` puts the current folder first: a file there must not run in place of a module.
    del sys.path[0]

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from curiosft_cli.run.text import one_line, show

if TYPE_CHECKING:
    from curiosft_cli.run.config import Resolved
    from curiosft_cli.run.sections import Config

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Supervised fine-tuning that keeps a model curious (CurioSFT), its baselines, RL and evaluation.",
    epilog="CONFIG is a TOML file or the name of a shipped recipe (`curiosft config recipes`). "
    "Settings follow as section.key=value. Everything after -- goes to `accelerate launch` unchanged.",
)
config_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Show or check a configuration without running anything."
)
data_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Check a data set before training on it.")
model_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Prepare a base model, or check one.")
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="TOML file or recipe.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[CONFIG] [KEY=VALUE]...", help="TOML file or recipe; settings to change.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete the output of this stage, and start again.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for a program to read.")]

# Everything after the first `--` of the command line. Typer does not see it.
launch_arguments: list[str] = []


@app.command()
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
) -> None:
    """Clean the questions of a data set through an OpenAI-compatible API."""
    if judge or out:
        from curiosft_cli.stages.rephrase.pairs import judge_pairs

        show(judge_pairs(_resolve(config, overrides).config, judge, out))
        return
    if calibrate:
        from curiosft_cli.stages.rephrase.calibrate import calibrate as measure

        show(measure(_resolve(config, overrides).config, calibrate))
        return
    if dry_run:
        from curiosft_cli.stages.rephrase.plan import plan_rephrase

        show(plan_rephrase(_resolve(config, overrides).config, as_json=as_json))
        return
    _run_stages(_resolve(config, overrides), ("rephrase",), fresh)


@app.command()
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
    _run_stages(_resolve(config, overrides), ("sft",), fresh)


@app.command()
def rl(
    config: ConfigArgument,
    overrides: Overrides = None,
    fresh: Fresh = False,
    preflight: Annotated[bool, typer.Option("--preflight", help="Only check that a reward can be right.")] = False,
) -> None:
    """Reinforcement learning with verifiable rewards, launched through accelerate."""
    if preflight:
        from curiosft_cli.tools.pipeline import run_preflight

        return run_preflight(_resolve(config, overrides))
    _run_stages(_resolve(config, overrides), ("rl",), fresh)


@app.command("eval")
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

    resolved = _resolve(config, overrides)
    if generations is not None:
        regrade(resolved, generations, fresh=fresh)
    else:
        _run_stages(resolved, ("eval",), fresh)
    print_results(resolved.config, as_json=as_json)


@app.command("run")
def run_all(config: ConfigArgument, overrides: Overrides = None, fresh: Fresh = False) -> None:
    """Run the stages of run.stages in order; complete ones are skipped."""
    resolved = _resolve(config, overrides)
    _run_stages(resolved, resolved.config.run.stages, fresh)
    if "eval" in resolved.config.run.stages:
        from curiosft_cli.tools.results_report import print_results

        print_results(resolved.config, as_json=False)


@app.command()
def quickstart(overrides: Overrides = None, fresh: Fresh = False) -> None:
    """The whole pipeline on a small real model on this machine, in minutes."""
    from curiosft_cli.tools.quickstart import quickstart as start

    start(overrides or [], fresh=fresh)


@app.command()
def grade(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL, JSON or parquet of saved responses.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="JSONL for the graded rows. Without it, they are printed.")
    ] = None,
    as_json: AsJson = False,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Also grade by Math-Verify and by string; list disagreements.")
    ] = False,
    grader: Annotated[str, typer.Option("--grader", help="curiosft, or official.")] = "curiosft",
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Number of processes. Default: one per core.")
    ] = None,
) -> None:
    """Grade saved responses without a model."""
    from curiosft_cli.tools.grade import grade_file

    grade_file(file, out, grader=grader, cross_check=cross_check, as_json=as_json, workers=workers)


@app.command()
def compare(
    results: Annotated[list[Path], typer.Argument(metavar="A B [C]...", help="Result folders; A is the reference.")],
    style: Annotated[str, typer.Option("--format", help="text, markdown, latex, csv or json.")] = "text",
    strict: Annotated[bool, typer.Option("--strict", help="Compare the strict reward, not the answers alone.")] = False,
) -> None:
    """Say which evaluation is better, and whether there is evidence for it."""
    from curiosft_cli.tools.compare import compare as compared

    show(compared(results, style=style, strict=strict))


@app.command()
def review(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or the name of a run in runs/.")],
    samples: Annotated[int, typer.Option("--samples", help="Rows to print here.")] = 10,
) -> None:
    """Compare cleaned questions with their originals: an HTML page, and some rows in the terminal."""
    from curiosft_cli.stages.rephrase.review import review as review_run

    review_run(run, samples=samples)


@config_app.command("show")
def config_show(config: ConfigArgument, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print every value and where it comes from."""
    import json

    from curiosft_cli.run.config import flatten

    resolved = _resolve(config, overrides)
    tree = resolved.config.model_dump(mode="json")
    if as_json:
        show(json.dumps({"config": tree, "origins": dict(resolved.origins)}, ensure_ascii=False))
        return
    rows = [(key, json.dumps(value, ensure_ascii=False), resolved.origins[key]) for key, value in flatten(tree)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, origin in rows:
        show(one_line(f"{key:{widths[0]}}  {value:{min(widths[1], 60)}}  {origin}"))


@config_app.command("check")
def config_check(config: ConfigArgument, overrides: Overrides = None) -> None:
    """Validate a configuration. If it is not legal: one line and exit code 2."""
    _resolve(config, overrides)
    show("ok")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the configuration."""
    import json

    from curiosft_cli.run.sections import Config

    show(json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False))


@config_app.command("explain-differences")
def config_explain_differences(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="TOML file or recipe.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print where the paper, the authors' code and our defaults differ; with CONFIG, where CONFIG departs from both."""
    import json
    from dataclasses import asdict

    from curiosft_cli.run.differences import DIFFERENCES, as_table

    if config is None:
        show(json.dumps([asdict(row) for row in DIFFERENCES], ensure_ascii=False) if as_json else as_table())
        return
    from curiosft_cli.run.departures import TITLES, departures, explained

    resolved = _resolve(config, overrides).config
    found = {column: [asdict(row) for row in departures(resolved, column)] for column in TITLES} if as_json else None
    show(json.dumps(found, ensure_ascii=False) if as_json else explained(resolved))


@config_app.command("recipes")
def config_recipes() -> None:
    """List the shipped recipes."""
    from curiosft_cli.run.config import recipe_names

    show("\n".join(recipe_names()))


@data_app.callback()
def _data() -> None:
    """Without this callback, typer would drop the name `check`, because it is the only command."""


@data_app.command("check")
def data_check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="JSONL, JSON or parquet file, hub id, or generator.")],
    settings: Settings = None,
    as_json: AsJson = False,
    fix: Annotated[bool, typer.Option("--fix", help="Write a repaired copy; the input is never changed.")] = False,
    drop_contaminated: Annotated[
        bool, typer.Option("--drop-contaminated", help="Write a copy without the questions that a benchmark has.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="File of the copy. Default: NAME.fixed.SUFFIX.")] = None,
) -> None:
    """Find what is wrong with a data set. Exit code 0: nothing; 2: problems; 3: something could not be checked."""
    from curiosft_cli.tools.data.command import run

    raise typer.Exit(
        run(path, _resolve_settings(settings), as_json=as_json, fix=fix, drop_contaminated=drop_contaminated, out=out)
    )


@model_app.command("prepare")
def model_prepare(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub id.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; must not exist.")],
    settings: Settings = None,
) -> None:
    """Write a copy that is ready for long thinking: context, chat template, stop and padding tokens, model card."""
    from curiosft_cli.run.log import Console
    from curiosft_cli.tools.model.prepare import prepare_model

    changes = prepare_model(model, out, _resolve_settings(settings), Console())
    for change in changes:
        show(one_line(f"{change.what}: {change.before} -> {change.after}"))
    show(f"wrote {out}")


@model_app.command("check")
def model_check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub id.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Find what would go wrong in sft, rl and eval. Exit code 0: nothing; 2: problems."""
    import dataclasses
    import json

    from curiosft_cli.tools.model.check import check_model

    remarks = check_model(model, _resolve_settings(settings))
    if as_json:
        show(json.dumps({"model": model, "remarks": [dataclasses.asdict(remark) for remark in remarks]}))
    else:
        for remark in remarks:
            level = "PROBLEM" if remark.level == "problem" else remark.level
            show(one_line(f"{level:8} {remark.about}: {remark.says}"))
            if remark.fix:
                show(one_line(f"         -> {remark.fix}"))
    raise typer.Exit(2 if any(remark.level == "problem" for remark in remarks) else 0)


def _resolve(config: str, overrides: list[str] | None) -> Resolved:
    from curiosft_cli.run.config import load

    return load(config, overrides or [])


def _resolve_settings(settings: list[str] | None) -> Config:
    """The configuration of `[CONFIG] [KEY=VALUE]...`. Without CONFIG, the settings change the defaults."""
    from curiosft_cli.run.config import load, parse_overrides, resolve

    given = settings or []
    if given and "=" not in given[0]:
        return load(given[0], given[1:]).config
    return resolve({}, parse_overrides(given), origin="default").config


def _run_stages(resolved: Resolved, stages: tuple[str, ...], fresh: bool) -> None:
    from curiosft_cli.tools.pipeline import run_stages

    run_stages(resolved, stages, fresh=fresh, accelerate_arguments=launch_arguments)


def _show_version(value: bool) -> None:
    if value:
        from curiosft_cli import __version__

        show(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point: one line for errors that the user can correct, a traceback for bugs, documented exit codes."""
    arguments = sys.argv[1:]
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, launch_arguments[:] = arguments[:cut], arguments[cut + 1 :]
    from curiosft_cli.run.errors import INTERRUPTED, TERMINATED, CurioError, file_trouble
    from curiosft_cli.run.processes import isolated

    os.environ.update(isolated(os.environ))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # typer answers KeyboardInterrupt with code 1
        signal.signal(signal.SIGINT, lambda *_: sys.exit(INTERRUPTED))
    try:
        app(args=arguments, prog_name="curiosft")
    except CurioError as error:
        show(f"curiosft: {one_line(str(error))}", sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (OSError, RecursionError) as error:
        known = file_trouble(error)
        if known is None:
            raise
        show(f"curiosft: {one_line(str(known))}", sys.stderr)
        raise SystemExit(known.exit_code) from None
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _interrupted(INTERRUPTED)
        if stop.code == TERMINATED:
            show("curiosft: stopped by SIGTERM; the same command continues", sys.stderr)
        raise


def _interrupted(code: int) -> NoReturn:
    """End after Ctrl-C: by the signal itself where a shell may wait, because its loop goes on after an exit code."""
    show("curiosft: interrupted; the same command continues", sys.stderr)
    if os.getpgrp() != os.getpid() or sys.stderr.isatty():
        sys.stderr.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
