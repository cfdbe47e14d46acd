"""Safetensors weights of a model folder: check them by their headers, and copy them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curiosft_cli.run.errors import CurioError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth")
_EXPONENTS = {
    "F64": np.uint64(0x7FF << 52),
    "F32": np.uint32(0xFF << 23),
    "F16": np.uint16(0x1F << 10),
    "BF16": np.uint16(0xFF << 7),
}


@dataclass(frozen=True)
class StoredTensor:
    """Type and shape of a stored tensor, from the header of its file."""

    dtype: str
    shape: tuple[int, ...]


def shard_files(folder: Path) -> list[Path]:
    """The weight files of a folder, in order.

    Raises:
        CurioError: there are none, they are pickled, or a file of the index is missing.
    """
    index = folder / INDEX
    if index.exists():
        try:
            names = sorted(set(_listed(folder).values()))
        except (OSError, RecursionError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CurioError(f"{index} is not an index of shards: {error}", "Download the model again.") from None
        if not names:
            raise CurioError(f"{index} lists no tensors", "Download the model again.")
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise CurioError(f"{index} names files outside its folder", "Download the model again.")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise CurioError(
                f"{folder} lacks {len(missing)} of {len(names)} shards, e.g. {missing[0]}", "Download the model again."
            )
        return [folder / name for name in names]
    files = [folder / SINGLE] if (folder / SINGLE).is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
        found = f"only pickled ones ({pickles[0]})" if pickles else "none"
        raise CurioError(
            f"{folder} has no safetensors weights, found {found}",
            "Take a version of the model with safetensors: a pickle can run code.",
        )
    return files


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a folder by name.

    Raises:
        CurioError: as in `shard_files`; or a file is incomplete or not safetensors, or lacks a tensor of the index.
    """
    tensors = {name: tensor for file in shard_files(folder) for name, tensor in read_header(file).items()}
    if (folder / INDEX).exists() and (absent := sorted(set(_listed(folder)) - set(tensors))):
        raise CurioError(
            f"{folder}: the index lists {len(absent)} tensors that no shard has, e.g. {absent[0]}",
            "Download the model again.",
        )
    return tensors


def _listed(folder: Path) -> dict[str, str]:
    """The file of each tensor, by the index."""
    return json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Type and shape of each tensor of one file, without reading the tensors.

    Raises:
        CurioError: the file is incomplete or not safetensors.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        raw = stream.read(length) if 0 < length <= size else b""
    try:
        header = {name: entry for name, entry in json.loads(raw).items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        tensors = {name: StoredTensor(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise CurioError(f"{file} is not a safetensors file", "Download it again.") from None
    if size != 8 + length + end:
        raise CurioError(f"{file} has {size:,} bytes, its header says {8 + length + end:,}", "Download it again.")
    return tensors


def check_finite(folder: Path) -> None:
    """Look for NaN and infinity in every weight. The files are read side by side.

    Raises:
        CurioError: a tensor has one, or a file cannot be read.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for file, name in zip(files := shard_files(folder), pool.map(_not_finite, files), strict=True):
            if name:
                raise CurioError(f"{file}: the weights of {name} hold NaN or infinity", "Restore the file.")


def _not_finite(file: Path, block: int = 1 << 22) -> str | None:
    """The first tensor whose numbers have all bits of the exponent set, if any."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        numbers = np.memmap(file, np.uint8, "r", offset=8 + length)
        for name, entry in header.items():
            if name != "__metadata__" and entry["dtype"] in _EXPONENTS:
                mask = _EXPONENTS[entry["dtype"]]
                bits = numbers[slice(*entry["data_offsets"])].view(mask.dtype)
                for start in range(0, len(bits), block):
                    if ((bits[start : start + block] & mask) == mask).any():
                        return name
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CurioError(f"{file} is not a safetensors file", "Download it again.") from None
    return None


def copy_weights(source: Path, target: Path, progress: Callable[[int, int], None]) -> int:
    """Copy the shards and their index byte for byte; return the number of bytes.

    `progress` is called after each shard with (bytes copied, all bytes).
    """
    files = shard_files(source)
    total = sum(file.stat().st_size for file in files)
    done = 0
    for file in files:
        shutil.copyfile(file, target / file.name)
        done += file.stat().st_size
        progress(done, total)
    if (source / INDEX).exists():
        shutil.copyfile(source / INDEX, target / INDEX)
    return total
