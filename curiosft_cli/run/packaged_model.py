"""The one model that comes in a PyPI package: its name in a configuration, and the folder where it is unpacked."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "pypi:smollm2-135m-instruct"
"""SmolLM2-135M-Instruct, which the quickstart trains."""


def unpacked_folder() -> Path:
    """`smollm2-135m-instruct` in `$XDG_CACHE_HOME/curiosft` or `~/.cache/curiosft`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "curiosft" / NAME.partition(":")[2]


def model_path(path: str) -> str:
    """A model's path as it is; in place of `NAME`, the folder where the model is unpacked before a stage opens it."""
    return str(unpacked_folder()) if path == NAME else path
