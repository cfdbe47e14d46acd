"""A supervised objective by its name, or from a Python file of the user's own: `FILE.py:NAME`.

The file is code that runs: when the configuration is read, and in every process of the training. The bytes that are run
are the bytes whose digest is recorded.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import traceback
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from curiosft_cli.objectives import SFT_OBJECTIVES, Objective, TokenLoss, TokenRows
from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.run.files import check_regular
from curiosft_cli.run.text import shortened

SUFFIX = ".py"
LONGEST = 300
"""Characters of an exception's text that are shown."""
FORM = "Write def NAME(rows, *, power: float = 2.0) -> TokenLoss"
GUIDE = "docs/adding-an-objective.md has a file that works."


class Named(NamedTuple):
    """An objective, and the SHA-256 of the file that it comes from; None for one of the package."""

    objective: Objective
    digest: str | None


def sft_objective(name: str, digest: str | None = None) -> Named:
    """Look a name up, or run a file and take what it defines under a name.

    Args:
        name: of `SFT_OBJECTIVES`, or `FILE.py:NAME`; the path is relative to the current folder.
        digest: what the file must have. None: anything.

    Raises:
        CurioError: the name does not exist; or the file cannot be read or run, was changed, or has no such objective.
    """
    file, colon, attribute = name.rpartition(":")
    if not (colon and file.endswith(SUFFIX)) and not name.endswith(SUFFIX):
        if name not in SFT_OBJECTIVES:
            fix = f"{nearest(name, SFT_OBJECTIVES)}; an objective of your own is FILE.py:FUNCTION."
            raise CurioError(f"sft.objective = {shortened(name)} does not exist", fix)
        if digest is not None:
            raise CurioError("sft.objective_sha256 is set, and sft.objective is no file", "Leave it out.")
        return Named(SFT_OBJECTIVES[name], None)
    if not colon or not attribute:
        raise CurioError(f"sft.objective = {shortened(name)} names a file and no function", "Write FILE.py:FUNCTION.")
    path = Path(file)
    source = _read(path)
    found = hashlib.sha256(source).hexdigest()
    if digest not in (None, found):
        raise CurioError(
            f"{path} was changed: its SHA-256 is {found}, and sft.objective_sha256 is {digest}", "Restore the file."
        )
    return Named(_objective(path, source, attribute), found)


def _read(path: Path) -> bytes:
    check_regular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        fix = f"The path is relative to the current folder, {Path.cwd()}."
        raise CurioError(f"cannot read the objective's file {path}: {error.strerror}", fix) from None


@functools.cache
def _objective(path: Path, source: bytes, attribute: str) -> Objective:
    module = _run(path, source)
    found = getattr(module, attribute, None)
    if found is None:
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        raise CurioError(f"{path} has no '{attribute}'", nearest(attribute, own) if own else "It defines no function.")
    objective = Objective(found) if isinstance(found, FunctionType) else found
    where = f"{path}:{attribute}"
    if not isinstance(objective, Objective):
        raise CurioError(f"{where} is a {type(found).__name__}, expected a function or an Objective", GUIDE)
    signature = _signature(objective.fn, where)
    terms = len(objective.terms) if isinstance(objective.terms, tuple) else None
    return Objective(
        _checked(objective.fn, signature, path, where, terms), objective.needs, objective.terms, objective.beside
    )


def _run(path: Path, source: bytes) -> ModuleType:
    """The file as a module of its own: no other file beside it can be imported, and no byte code is written."""
    module = ModuleType(f"curiosft_objective_{hashlib.sha256(source).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise CurioError(f"{path} cannot be loaded: {_told(error, path)}", "Correct the file.") from None
    return module


def _told(error: BaseException, path: Path) -> str:
    """Kind, text and place of an exception; the place is the last line of the file on the way to it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())[:LONGEST]
    return f"{type(error).__name__}: {text}" + (f" (line {line})" if line else "")


def _signature(function: FunctionType, where: str) -> inspect.Signature:
    """The signature, with the types of the keyword-only arguments as types: `objective_parameters` reads them.

    Raises:
        CurioError: it is not one argument and keyword-only parameters with a type and a plain default.
    """
    signature = inspect.signature(function)
    first, others = [*signature.parameters.values()][:1], [*signature.parameters.values()][1:]
    one = [found for found in first if found.kind in (found.POSITIONAL_ONLY, found.POSITIONAL_OR_KEYWORD)]
    if not one or any(other.kind is not other.KEYWORD_ONLY for other in others):
        raise CurioError(f"{where} takes {signature}, expected the rows, then only keyword-only parameters", f"{FORM}.")
    resolved = []
    for other in others:
        if not isinstance(other.default, bool | int | float | str | None):
            raise CurioError(f"{where}: parameter {other.name} has no default that is a number or a text", f"{FORM}.")
        try:
            kind = (
                eval(other.annotation, vars(sys.modules[function.__module__])) if _is_text(other) else other.annotation
            )
        except Exception as error:
            said = f"{where}: the type of parameter {other.name} is unknown: {error}"
            raise CurioError(said, "Use float, int, bool or str.") from None
        if kind is other.empty:
            raise CurioError(f"{where}: parameter {other.name} has no type", f"{FORM}.")
        resolved.append(other.replace(annotation=kind))
    return signature.replace(parameters=[*first, *resolved])


def _is_text(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.annotation, str)


def _checked(function: FunctionType, signature: inspect.Signature, path: Path, where: str, terms: int | None) -> Any:
    """The function, whose exceptions and wrong results end the run with one line."""

    @functools.wraps(function)
    def checked(rows: TokenRows, **parameters: Any) -> TokenLoss:
        try:
            out = function(rows, **parameters)
        except Exception as error:
            raise CurioError(f"{where} failed: {_told(error, path)}", "Correct the file.") from error
        if fault := _fault(out, rows, terms):
            raise CurioError(f"{where} {fault}", GUIDE)
        return out

    checked.__signature__ = signature  # ty: ignore[missing-attribute]
    return checked


def _fault(out: Any, rows: TokenRows, terms: int | None) -> str:
    """What is wrong with a result; "" for nothing."""
    if not isinstance(out, TokenLoss):
        return f"returned a {type(out).__name__}, expected TokenLoss(loss)"
    if terms is not None and len(out.terms) != terms:
        return f"returned {len(out.terms)} terms, expected {terms}"
    expected = tuple(rows.logp.shape)
    for name, values in (*(("loss", term) for term in out.terms), *out.stats.items()):
        if (shape := getattr(values, "shape", None)) is None or tuple(shape) != expected:
            found = type(values).__name__ if shape is None else f"tensor of shape {tuple(shape)}"
            return f"returned a {found} as '{name}', expected one number per token, {expected}"
    if rows.logp.requires_grad and not any(term.requires_grad for term in out.terms):
        return "returned a loss without a gradient; it must depend on rows.logp, rows.entropy or rows.logits"
    return ""
