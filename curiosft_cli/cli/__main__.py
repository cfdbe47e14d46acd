"""`python -m curiosft_cli.cli`."""

import sys

if not sys.flags.safe_path:
    # `python -m` puts the current folder first: a file there must not run in place of a module.
    del sys.path[0]

from curiosft_cli.cli.main import main

main()
