"""Problems on disk, read back one by one: memory stays flat however many there are."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curiosft_cli.tasks.records import Problem


class Spool:
    """A nameless temporary file of problems and where each begins; gone with the process, also after `kill -9`.

    Args:
        problems: written in this order.
        folder: the file system that holds the file.
    """

    def __init__(self, problems: Iterable[Problem], folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as this object)
        self._starts = array("Q", [0])
        for problem in problems:
            line = json.dumps(asdict(problem), ensure_ascii=False).encode("utf-8", "surrogatepass")
            self._file.write(line)
            self._starts.append(self._starts[-1] + len(line))
        self._file.flush()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Problem:
        start, end = self._starts[index], self._starts[index + 1]
        self._file.seek(start)
        fields: dict[str, Any] = json.loads(self._file.read(end - start).decode("utf-8", "surrogatepass"))
        fields["choices"] = tuple(fields["choices"])
        return Problem(**fields)

    def close(self) -> None:
        """Drop the file."""
        self._file.close()
