"""Which grader made a grade: its name, the version of the package, and a digest of the code that decides."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import curiosft_cli
from curiosft_cli.tasks.records import Grader

DECIDING = (
    *("answers", "choices", "extraction", "grading", "matching", "official", "readings", "records"),
    *("symbolic", "units"),
)
LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy")


def grader_identity(name: Grader) -> dict[str, str]:
    """`{"name", "version", "code", "math-verify", ...}`: two results with equal identities were graded alike."""
    identity = {"name": name, "version": curiosft_cli.__version__, "code": _digest_of_code()}
    for library in LIBRARIES:
        try:
            identity[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            identity[library] = "missing"
    return identity


@lru_cache(maxsize=1)
def _digest_of_code(characters: int = 12) -> str:
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for name in DECIDING:
        digest.update((folder / f"{name}.py").read_bytes())
    return digest.hexdigest()[:characters]
