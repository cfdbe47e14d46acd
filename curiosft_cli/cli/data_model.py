"""`curiosft data` and `curiosft model`: the commands only; the work is imported when one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Config

data_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look at a data set before training on it.")
model_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Make a base model ready, or look at one.")

Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[CONFIG] [KEY=VALUE]...", help="TOML file or recipe; settings to change.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for a program to read.")]


@data_app.callback()
def _data() -> None:
    """Keeps `check` a command of its own while it is the only one."""


@data_app.command("check")
def data_check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="JSONL, JSON or parquet file, hub id, or generator.")],
    settings: Settings = None,
    as_json: AsJson = False,
    fix: Annotated[bool, typer.Option("--fix", help="Write a repaired copy; the input is never touched.")] = False,
    drop_contaminated: Annotated[
        bool, typer.Option("--drop-contaminated", help="Write a copy without the questions that a benchmark has.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Where the copy goes; default NAME.fixed.SUFFIX.")] = None,
) -> None:
    """Say what is wrong with a data set. Exit code 0: nothing; 2: problems; 3: something could not be looked at."""
    from curiosft_cli.tools.data.command import run

    raise typer.Exit(
        run(path, _config(settings), as_json=as_json, fix=fix, drop_contaminated=drop_contaminated, out=out)
    )


def _config(settings: list[str] | None) -> Config:
    """The configuration of `[CONFIG] [KEY=VALUE]...`; without CONFIG the defaults and the settings."""
    from curiosft_cli.run.config import load, parse_overrides, resolve

    given = settings or []
    if given and "=" not in given[0]:
        return load(given[0], given[1:]).config
    return resolve({}, parse_overrides(given), origin="default").config


@model_app.command("prepare")
def model_prepare(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub id.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; must not exist.")],
    settings: Settings = None,
) -> None:
    """Write a copy that is ready for long thinking: context, chat template, stop and padding tokens, model card."""
    from curiosft_cli.run.log import Console
    from curiosft_cli.tools.model.prepare import prepare_model

    changes = prepare_model(model, out, _config(settings), Console())
    for change in changes:
        print(f"{change.what}: {change.before} -> {change.after}")
    print(f"wrote {out}")


@model_app.command("check")
def model_check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub id.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Explain what would go wrong in sft, rl and eval. Exit code 0: nothing; 2: problems."""
    import dataclasses
    import json

    from curiosft_cli.tools.model.check import check_model

    remarks = check_model(model, _config(settings))
    if as_json:
        print(json.dumps({"model": model, "remarks": [dataclasses.asdict(remark) for remark in remarks]}))
    else:
        for remark in remarks:
            print(
                f"{remark.level.upper() if remark.level == 'problem' else remark.level:8} {remark.about}: {remark.says}"
            )
            if remark.fix:
                print(f"         -> {remark.fix}")
    raise typer.Exit(2 if any(remark.level == "problem" for remark in remarks) else 0)
