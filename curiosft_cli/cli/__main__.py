"""`python -m curiosft_cli.cli`."""

from curiosft_cli.cli import main

main()
