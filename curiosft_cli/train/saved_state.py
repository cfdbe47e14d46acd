"""What the ranks of a checkpoint kept, for any number of ranks that continue from it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.train.shards import local_shard, own_rows

if TYPE_CHECKING:
    from torch import Tensor


def rank_file(rank: int) -> str:
    """Name of the file that a rank writes."""
    return f"rank-{rank:05d}.safetensors"


class SavedState:
    """The tensors of all ranks' files. They are mapped, and a rank reads only what it needs.

    The parts of a sharded tensor lie in the files in the order of its rows; another tensor lies in one file or, equal,
    in several.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._open = ExitStack()
        self._files: list[Any] = [
            self._open.enter_context(safe_open(file, "pt")) for file in sorted(folder.glob("rank-*.safetensors"))
        ]
        self._where: dict[str, list[Any]] = {}
        for file in self._files:
            for name in file.keys():  # noqa: SIM118  # no mapping
                self._where.setdefault(name, []).append(file)

    def names(self, prefix: str) -> list[str]:
        """All names that begin so."""
        return [name for name in self._where if name.startswith(prefix)]

    def tensor(self, name: str, rank: int | None = None) -> Tensor:
        """One tensor, of the first file that has it, or of the file of `rank` (counted modulo the files)."""
        files = self._where[name] if rank is None else [self._files[rank % len(self._files)]]
        return files[0].get_tensor(name)

    def shard(self, name: str, parameter: Tensor) -> Tensor:
        """The rows of a tensor, shaped like `parameter`, that this rank holds of the parameter.

        Raises:
            RuntimeError: the files have another number of rows.
        """
        import torch

        own, parts, rows = own_rows(parameter), [], 0
        for file in self._where[name]:
            piece = file.get_slice(name)
            size = piece.get_shape()[0]
            low, high = max(own.start, rows), min(own.stop, rows + size)
            if low < high:
                parts.append(piece[low - rows : high - rows])
            rows += size
        if rows != len(parameter):
            raise RuntimeError(f"{name} has {rows} rows, the model {len(parameter)}")
        return torch.cat(parts) if parts else torch.zeros_like(local_shard(parameter))

    def close(self) -> None:
        """Unmap the files."""
        self._open.close()
