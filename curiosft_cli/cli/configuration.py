"""Configurations, shown and checked, and what this machine lacks for one."""

from __future__ import annotations

from typing import Annotated

import typer

from curiosft_cli.cli.app import (
    CONFIGURATION,
    AsJson,
    ConfigArgument,
    Overrides,
    Settings,
    app,
    config_app,
    resolve,
    resolve_settings,
)
from curiosft_cli.run.text import show


@config_app.command("show")
def config_show(config: ConfigArgument, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print every value and where it comes from."""
    from curiosft_cli.tools.show_config import values_and_origins

    show(values_and_origins(resolve(config, overrides), as_json=as_json))


@config_app.command("check")
def config_check(config: ConfigArgument, overrides: Overrides = None) -> None:
    """Validate a configuration. If it is not legal: one line and exit code 2."""
    from curiosft_cli.evaluation.tasks import check_names

    check_names(resolve(config, overrides).config)
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
    from curiosft_cli.tools.show_config import differences

    show(differences(resolve(config, overrides).config if config else None, as_json=as_json))


@config_app.command("recipes")
def config_recipes() -> None:
    """List the shipped recipes."""
    from curiosft_cli.run.config import recipe_names

    show("\n".join(recipe_names()))


@app.command(rich_help_panel=CONFIGURATION)
def doctor(settings: Settings = None, as_json: AsJson = False) -> None:
    """Check this machine. Exit code 3: something is missing that CONFIG (or the package alone) needs."""
    from curiosft_cli.tools.doctor.command import examine

    raise typer.Exit(examine(resolve_settings(settings) if settings else None, as_json=as_json))


@app.command(rich_help_panel=CONFIGURATION)
def plan(
    config: ConfigArgument,
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs of one node, or processes on a CPU.")] = 8,
    gpu: Annotated[str, typer.Option("--gpu", help="Kind of GPU, such as h100-80g; cpu is this machine.")] = "h100-80g",
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Nodes.")] = 1,
    mfu: Annotated[
        float | None, typer.Option("--mfu", min=0.01, max=1, help="Share of the GPU's peak. Default: 0.4.")
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Rows of the training data.")] = None,
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", min=1, help="Of a prompt, on average.")] = 300,
    response_tokens: Annotated[int, typer.Option("--response-tokens", min=1, help="Of a response, on average.")] = 4000,
    write: Annotated[bool, typer.Option("--write", help="Write a configuration that fits, with reasons.")] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Also run three real steps of sft on this machine, and correct the plan by them."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Does it fit, how long does it take, how much disk? Exit code 0: it fits; 4: it does not."""
    from curiosft_cli.tools.plan.command import run

    raise typer.Exit(
        run(
            config,
            overrides or [],
            gpus=gpus,
            gpu=gpu,
            nodes=nodes,
            mfu=mfu,
            rows=rows,
            prompt_tokens=prompt_tokens,
            response_tokens=response_tokens,
            write=write,
            probe=probe,
            as_json=as_json,
        )
    )
