"""What reads finished work: grades, comparisons, reviews."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curiosft_cli.cli.app import RESULTS, AsJson, app
from curiosft_cli.run.text import show


@app.command(rich_help_panel=RESULTS)
def grade(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL, JSON, CSV or parquet of saved responses.")],
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


@app.command(rich_help_panel=RESULTS)
def compare(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C]...",
            help="Result folders; A is the reference. NAME=FOLDER is a run of the method NAME: several runs (seeds) of "
            "one NAME are compared as one method, and FOLDER may be a pattern.",
        ),
    ],
    style: Annotated[str, typer.Option("--format", help="text, markdown, latex, csv or json.")] = "text",
    strict: Annotated[bool, typer.Option("--strict", help="Compare the strict reward, not the answers alone.")] = False,
    with_flips: Annotated[bool, typer.Option("--flips", help="Also list the questions that only one solves.")] = False,
    min_difference: Annotated[
        float, typer.Option("--min-difference", metavar="POINTS", help="A smaller difference does not matter.")
    ] = 0.0,
    gated: Annotated[
        bool, typer.Option("--gate", help="Exit code 4 if a model is worse than A, 5 if the results cannot tell.")
    ] = False,
) -> None:
    """Say which evaluation is better, and whether there is evidence for it."""
    from curiosft_cli.tools.compare import check_gate
    from curiosft_cli.tools.compare import compare as compared

    text, rows = compared(results, style=style, strict=strict, with_flips=with_flips, min_difference=min_difference)
    show(text)
    if gated:
        check_gate(rows, min_difference)


@app.command(rich_help_panel=RESULTS)
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN [RUN]...", help="Run folders, or names of runs in runs/.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file. Default: report.html in the folder of the first run.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Folder for Figures 1, 2, 4 and 5 as PDF and PNG.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=0, help="Only the curiosity map of this held-out row, whole.")
    ] = None,
) -> None:
    """Show runs in one HTML file: scores, curves, Pass@k, samples, and the curiosity of each token."""
    from curiosft_cli.tools.report.write import write_report

    for line in write_report(runs, out, figures, tokens):
        show(line)


@app.command(rich_help_panel=RESULTS)
def review(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or the name of a run in runs/.")],
    samples: Annotated[int, typer.Option("--samples", help="Rows to print here.")] = 10,
) -> None:
    """Compare cleaned questions with their originals: an HTML page, and some rows in the terminal."""
    from curiosft_cli.stages.rephrase.review import review as review_run

    review_run(run, samples=samples)


@app.command("runs", rich_help_panel=RESULTS)
def list_runs(
    root: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder with the runs.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs of a folder: stage, step, best score, entropy, age and size."""
    from curiosft_cli.tools.runs import runs

    show(runs(root, as_json=as_json))


@app.command("choose", rich_help_panel=RESULTS)
def choose_checkpoint(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN [RUN]... [KEY=VALUE]...", help="Folders, or names in runs/; settings to change."),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="First draw the samples that are missing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which sft checkpoint rl should start from, and why."""
    from curiosft_cli.tools.choose.command import choose

    show(choose(words or [], sample=sample, as_json=as_json))
