"""SHA-256 of the files of a checkpoint, in its `COMPLETE` marker: a changed, swapped or missing file is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import COMPLETE, read_json

CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
STATE = "state"
"""Folder of a checkpoint that only resuming needs: it may be deleted as a whole."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_marker(folder: Path, step: int) -> str:
    """The text of the marker of a checkpoint: its step, and the digest of each file by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return json.dumps({"step": step, "sha256": file_digests(folder, files)}, indent=1) + "\n"


def check_digests(checkpoint: Path) -> int:
    """Compare every file of a checkpoint with its digest; return how many there are.

    It is 0 for a model that no training wrote.

    Raises:
        CurioError: a file or the marker itself was changed, swapped, cut or deleted after it was written, or the
            folder has another step's name.
    """
    marker = checkpoint / COMPLETE
    named = CHECKPOINT.match(checkpoint.resolve().name)
    if not marker.is_file() or not (named or marker.stat().st_size):
        return 0
    fix = "Restore the checkpoint, or use --fresh to start the stage over that made it."
    kept = read_json(marker, fix) if marker.stat().st_size else {}
    expected, step = kept.get("sha256"), kept.get("step")
    if not isinstance(expected, dict) or not expected or not isinstance(step, int):
        raise CurioError(f"{marker} lists no digests: it was cut or changed, or is of a version without them", fix)
    if named and int(named[1]) != step:
        raise CurioError(f"{checkpoint} is the checkpoint of step {step} under another name", "Rename it.")
    pruned = not (checkpoint / STATE).exists()
    files = [checkpoint / name for name in expected if not (pruned and name.startswith(f"{STATE}/"))]
    if missing := [file for file in files if not file.is_file()]:
        raise CurioError(f"{missing[0]} is missing", fix)
    found = file_digests(checkpoint, files)
    if changed := [name for name, digest in found.items() if digest != expected[name]]:
        raise CurioError(f"{checkpoint / changed[0]} was changed or damaged after it was written", fix)
    return len(files)


def file_digests(folder: Path, files: Sequence[Path]) -> dict[str, str]:
    """The digest of each of these files, by its path in the folder."""
    # Hashing leaves Python's lock free, so the files are hashed side by side.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(file_digest, files)
        return {file.relative_to(folder).as_posix(): digest for file, digest in zip(files, found, strict=True)}
