"""The `curiosft` application, and what its commands share.

The modules of this package import typer, the standard library and `show` only, so that `--help` is fast. Each command
imports its own work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from curiosft_cli.run.config import Resolved
    from curiosft_cli.run.sections import Config

# The groups of `--help`, in its order. A command names its own.
PIPELINE, RESULTS, DATA_AND_MODELS, CONFIGURATION = "Pipeline", "Results", "Data and models", "Configuration"


class GroupedCommands(TyperGroup):
    """A group whose help lists its commands under the headings that they name."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # typer's copy of click has no public name
        """Write one table for each heading, in the order of declaration."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        for heading in (PIPELINE, RESULTS, DATA_AND_MODELS, CONFIGURATION):
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (name, command.get_short_help_str(limit=200))
                        for name, command in commands
                        if command is not None and getattr(command, "rich_help_panel", None) == heading
                    ]
                )


app = typer.Typer(
    cls=GroupedCommands,
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
model_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Prepare or check a model, or send a checkpoint to the hub."
)
app.add_typer(data_app, name="data", rich_help_panel=DATA_AND_MODELS)
app.add_typer(model_app, name="model", rich_help_panel=DATA_AND_MODELS)
app.add_typer(config_app, name="config", rich_help_panel=CONFIGURATION)


def _recipes(incomplete: str) -> list[str]:
    """What a shell may complete in place of CONFIG, beside files."""
    from curiosft_cli.run.layers import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="TOML file or recipe.", autocompletion=_recipes)]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[CONFIG] [KEY=VALUE]...", help="TOML file or recipe; settings to change.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete the output of this stage, and start again.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for a program to read.")]

# Everything after the first `--` of the command line. Typer does not see it.
launch_arguments: list[str] = []


def resolve(config: str, overrides: list[str] | None) -> Resolved:
    """The configuration of `CONFIG [KEY=VALUE]...`, with the origin of each value."""
    from curiosft_cli.run.config import load

    return load(config, overrides or [])


def resolve_settings(settings: list[str] | None) -> Config:
    """The configuration of `[CONFIG] [KEY=VALUE]...`. Without CONFIG, the settings change the defaults."""
    from curiosft_cli.run.config import load, parse_overrides
    from curiosft_cli.run.config import resolve as resolved

    given = settings or []
    if given and "=" not in given[0]:
        return load(given[0], given[1:]).config
    return resolved({}, parse_overrides(given), origin="default").config
