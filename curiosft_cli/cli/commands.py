"""The `curiosft` command. Module level loads typer and the standard library only, so that `--help` is instant."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curiosft_cli.cli.data_model import data_app, model_app

if TYPE_CHECKING:
    from curiosft_cli.run.config import Resolved

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Supervised fine-tuning that keeps a model curious (CurioSFT), its baselines, RL and evaluation.",
    epilog="CONFIG is a TOML file or the name of a shipped recipe (`curiosft config recipes`). "
    "Settings follow as section.key=value; what follows -- goes to `accelerate launch` unchanged.",
)
config_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Look at a configuration without running anything."
)
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="TOML file or recipe.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete what this stage made, and start over.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for a program to read.")]

# What stood after the first `--`; Typer never sees it.
launch_arguments: list[str] = []


@app.command()
def rephrase(
    config: ConfigArgument,
    overrides: Overrides = None,
    fresh: Fresh = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print requests, tokens, cost and time; nothing is asked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Clean the questions of a data set through an OpenAI-compatible API."""
    if dry_run:
        from curiosft_cli.stages.rephrase.plan import plan_rephrase

        print(plan_rephrase(_resolve(config, overrides).config, as_json=as_json))
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
        print(f"uninterrupted  {proof.whole}\nkilled         {proof.halves}\nequal")
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
    """Run the stages named in run.stages in order; what is complete is skipped."""
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
    out: Annotated[Path | None, typer.Option("--out", help="JSONL for the graded rows; none prints them.")] = None,
    as_json: AsJson = False,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Also grade by Math-Verify and by string; list disagreements.")
    ] = False,
    grader: Annotated[str, typer.Option("--grader", help="curiosft, or official.")] = "curiosft",
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; none is one per core.")] = None,
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

    print(compared(results, style=style, strict=strict))


@app.command()
def review(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or the name of a run in runs/.")],
    samples: Annotated[int, typer.Option("--samples", help="Rows to print here.")] = 10,
) -> None:
    """Compare cleaned questions with their originals: an HTML page, and some rows in the terminal."""
    from curiosft_cli.stages.rephrase.review import review as look

    look(run, samples=samples)


@config_app.command("show")
def config_show(config: ConfigArgument, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print every value and where it comes from."""
    import json

    from curiosft_cli.run.config import flatten

    resolved = _resolve(config, overrides)
    tree = resolved.config.model_dump(mode="json")
    if as_json:
        print(json.dumps({"config": tree, "origins": dict(resolved.origins)}, ensure_ascii=False))
        return
    rows = [(key, json.dumps(value, ensure_ascii=False), resolved.origins[key]) for key, value in flatten(tree)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, origin in rows:
        print(f"{key:{widths[0]}}  {value:{min(widths[1], 60)}}  {origin}")


@config_app.command("check")
def config_check(config: ConfigArgument, overrides: Overrides = None) -> None:
    """Validate a configuration; exit code 2 and one line when it is not legal."""
    _resolve(config, overrides)
    print("ok")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the configuration."""
    import json

    from curiosft_cli.run.sections import Config

    print(json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False))


@config_app.command("explain-differences")
def config_explain_differences(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="TOML file or recipe.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Where the paper, the authors' code and our default differ; with CONFIG, where that one departs from the two."""
    import json
    from dataclasses import asdict

    from curiosft_cli.run.differences import DIFFERENCES, as_table

    if config is None:
        print(json.dumps([asdict(row) for row in DIFFERENCES], ensure_ascii=False) if as_json else as_table())
        return
    from curiosft_cli.run.departures import TITLES, departures, explained

    resolved = _resolve(config, overrides).config
    found = {column: [asdict(row) for row in departures(resolved, column)] for column in TITLES} if as_json else None
    print(json.dumps(found, ensure_ascii=False) if as_json else explained(resolved))


@config_app.command("recipes")
def config_recipes() -> None:
    """List the shipped recipes."""
    from curiosft_cli.run.config import recipe_names

    print("\n".join(recipe_names()))


def _resolve(config: str, overrides: list[str] | None) -> Resolved:
    from curiosft_cli.run.config import load

    return load(config, overrides or [])


def _run_stages(resolved: Resolved, stages: tuple[str, ...], fresh: bool) -> None:
    from curiosft_cli.tools.pipeline import run_stages

    run_stages(resolved, stages, fresh=fresh, accelerate_arguments=launch_arguments)


def _show_version(value: bool) -> None:
    if value:
        from curiosft_cli import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Entry point: one line for errors the user can mend, a traceback for bugs, and the documented exit codes."""
    arguments = sys.argv[1:]
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, launch_arguments[:] = arguments[:cut], arguments[cut + 1 :]
    from curiosft_cli.run.errors import INTERRUPTED, TERMINATED, CurioError, file_trouble

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        app(args=arguments, prog_name="curiosft")
    except CurioError as error:
        print(f"curiosft: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        known = file_trouble(error)
        if known is None:
            raise
        print(f"curiosft: {known}", file=sys.stderr)
        raise SystemExit(known.exit_code) from None
    except KeyboardInterrupt:
        print("curiosft: interrupted; the same command continues", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
