"""What identifies a result: its grader, model and questions, each by name and digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import curiosft_cli
from curiosft_cli.data.records import Grader, Problem
from curiosft_cli.run.digests import file_digest
from curiosft_cli.run.files import COMPLETE, read_json

READ_BY_GRADING = ("records", "response_format")
WEIGHTS = ("*.safetensors", "config.json", "tokenizer.json", "chat_template.jinja")
LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy", "pint")


def grader_identity(name: Grader) -> dict[str, str]:
    """`{"name", "version", "code", "math-verify", ...}`: results with equal identities were graded the same way."""
    identity = {"name": name, "version": curiosft_cli.__version__, "code": _digest_of_code()}
    for library in LIBRARIES:
        try:
            identity[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            identity[library] = "missing"
    return identity


def model_identity(path: str, revision: str | None = None) -> dict[str, str | None]:
    """`{"path", "sha256"}` of a folder's weights, configuration and tokenizer, or `{"path", "commit"}` of a hub id."""
    folder = Path(path)
    if not folder.is_dir():
        return {"path": path, "commit": _cached_commit(path, revision)}
    files = {file.name: file for pattern in WEIGHTS for file in folder.glob(pattern)}
    return {"path": path, "sha256": _weights_digest({name: file_digest(file) for name, file in files.items()})}


def recorded_identity(checkpoint: Path) -> str | None:
    """The "sha256" of `model_identity` by the digests that the checkpoint's marker has; None if it has none."""
    marker = checkpoint / COMPLETE
    recorded = read_json(marker).get("sha256") if marker.stat().st_size else None
    if not isinstance(recorded, dict):
        return None
    top = {name: digest for name, digest in recorded.items() if "/" not in name}
    return _weights_digest({name: top[name] for name in top if any(fnmatch(name, one) for one in WEIGHTS)})


def questions_digest(problems: Iterable[Problem]) -> str:
    """SHA-256 of ids, questions, choices and golds in this order."""
    digest = hashlib.sha256()
    for problem in problems:
        fields = [problem.id, problem.question, problem.answer, list(problem.choices)]
        digest.update(json.dumps(fields).encode())
    return digest.hexdigest()


def data_commit(name: str, revision: str | None) -> str | None:
    """The commit of a hub data set: the pinned one, or that of the branch in the local cache; None if unknown."""
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import constants

    reference = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}" / "refs" / (revision or "main")
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def _weights_digest(files: Mapping[str, str]) -> str:
    """One digest of the files' digests by name."""
    return hashlib.sha256("".join(f"{name} {files[name]}\n" for name in sorted(files)).encode()).hexdigest()


def _cached_commit(path: str, revision: str | None) -> str | None:
    """The commit of a hub model in the local cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(path, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent.name if isinstance(found, str) else None


@lru_cache(maxsize=1)
def _digest_of_code(characters: int = 12) -> str:
    """Digest of the modules that decide a grade: `grading/`, and what it imports from `data/`."""
    package = Path(curiosft_cli.__file__).parent
    digest = hashlib.sha256()
    for file in (
        *sorted((package / "grading").glob("*.py")),
        *(package / "data" / f"{name}.py" for name in READ_BY_GRADING),
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:characters]
