"""Data sets of the hub: their rows, and the Arrow table that holds them.

`OWNER/NAME` is a data set's split, `OWNER/NAME:FILE` one file of its repository. Gated data sets need `HF_TOKEN`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.data.files import READERS, FileRow
from curiosft_cli.run.errors import MISSING, CurioError, hub_refusal
from curiosft_cli.run.hub import use_hub

if TYPE_CHECKING:
    import datasets


NAMED = {
    "authors": "Hao0oWang/CurioSFT_Data:train.parquet",
    "raw": "Elliott/Openr1-Math-46k-8192",
}
"""The paper's questions by one word: cleaned by its authors, and as they were before."""

FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}
"""Suffixes of files in a repository, and how `datasets` calls their readers."""


def is_hub_id(source: str) -> bool:
    """Whether a source is a name of `NAMED`, or is written as OWNER/NAME or OWNER/NAME:FILE and is not a path."""
    if Path(source).exists():
        return False
    name, _, file = source.partition(":")
    looks = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    return source in NAMED or (looks and (bool(file) or Path(name).suffix not in READERS))


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
    use_hub()
    from datasets import load_dataset

    repository, _, file = NAMED.get(name, name).partition(":")
    if file and Path(file).suffix not in FORMATS:
        raise CurioError(f"{name} is no table", f"Name a file that ends in {', '.join(FORMATS)}.")
    try:
        if file:
            # By itself: the other files of the repository may have other columns.
            return load_dataset(FORMATS[Path(file).suffix], data_files=[_file(repository, file, revision)], split=split)
        return load_dataset(repository, config, split=split, revision=revision)
    except Exception as error:  # the hub's client raises many kinds; each means that the data cannot be loaded
        if (refusal := hub_refusal(error, repository)) is not None:
            raise refusal from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CurioError(
            f"cannot load {name} from the hub: {reason}", "Check the name and the network, or give a file.", MISSING
        ) from error


def _file(repository: str, file: str, revision: str | None) -> str:
    """The local copy of one file of a data set's repository."""
    from huggingface_hub import hf_hub_download

    return hf_hub_download(repository, file, repo_type="dataset", revision=revision)
