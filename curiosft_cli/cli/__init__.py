"""The `curiosft` command: options, help and exit codes. The work is imported when a command runs."""

from curiosft_cli.cli.commands import main

__all__ = ["main"]
