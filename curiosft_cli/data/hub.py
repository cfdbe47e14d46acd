"""Data sets of the hub: their rows, and the Arrow table that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.data.files import READERS, FileRow
from curiosft_cli.run.errors import MISSING, CurioError

if TYPE_CHECKING:
    import datasets


def is_hub_id(source: str) -> bool:
    """Whether a source is written as OWNER/NAME and is not a path."""
    is_id = source.count("/") == 1 and not source.startswith((".", "/", "~")) and Path(source).suffix not in READERS
    return is_id and not Path(source).exists()


def hub_rows(
    name: str, *, split: str = "train", config: str | None = None, revision: str | None = None
) -> Iterator[tuple[int, FileRow]]:
    """Stream `(row number from 1, row)` of a data set of the hub.

    Raises:
        CurioError: exit code 3 when the data set is out of reach.
    """
    yield from enumerate(hub_table(name, split=split, config=config, revision=revision), start=1)


@lru_cache(maxsize=16)
def hub_table(
    name: str, *, split: str = "train", config: str | None = None, revision: str | None = None
) -> datasets.Dataset:
    """A data set of the hub, mapped into memory from the hub's local cache; `.data` is its Arrow table.

    One process always reads the same version, even if a new one is uploaded meanwhile.

    Raises:
        CurioError: exit code 3 when the data set is out of reach.
    """
    from datasets import load_dataset

    try:
        return load_dataset(name, config, split=split, revision=revision)
    except Exception as error:  # the hub's client raises many kinds; each means that the data cannot be loaded
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CurioError(
            f"cannot load {name} from the hub: {reason}", "Check the name and the network, or give a file.", MISSING
        ) from error
