"""Checks and preparation of data sets and base models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curiosft_cli.cli.app import AsJson, Settings, data_app, model_app, resolve_settings
from curiosft_cli.run.text import one_line, show


@data_app.callback()
def _data() -> None:
    """Without this callback, typer would drop the name `check`, because it is the only command."""


@data_app.command("check")
def data_check(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="JSONL, JSON, CSV or parquet file, hub id, or generator.")
    ],
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
        run(path, resolve_settings(settings), as_json=as_json, fix=fix, drop_contaminated=drop_contaminated, out=out)
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

    changes = prepare_model(model, out, resolve_settings(settings), Console())
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

    from curiosft_cli.tools.model.check import as_text, check_model

    remarks = check_model(model, resolve_settings(settings))
    found = {"model": model, "remarks": [dataclasses.asdict(remark) for remark in remarks]}
    show(json.dumps(found) if as_json else as_text(remarks))
    raise typer.Exit(2 if any(remark.level == "problem" for remark in remarks) else 0)


@model_app.command("push")
def model_push(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="RUN:sft, RUN:rl@best, or its folder.")],
    repository: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="Repository on the hub.")],
    settings: Settings = None,
    send: Annotated[bool, typer.Option("--upload", help="Send it. Without this, it is only shown.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
) -> None:
    """Send a checkpoint to the Hugging Face hub, with a model card made from its run."""
    from curiosft_cli.tools.model.push import prepare_shipment, upload

    shipment = prepare_shipment(checkpoint, repository, resolve_settings(settings))
    show(shipment.as_text(public=public))
    show(f"sent: {upload(shipment, public=public)}" if send else "nothing was sent; --upload sends it")
