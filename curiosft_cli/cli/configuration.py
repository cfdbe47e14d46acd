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
    resolve(config, overrides)
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
