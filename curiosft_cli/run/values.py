"""What every value of a configuration must be: readable TOML, not too deep, a finite number, and no secret."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Set
from typing import Any

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.text import shortened

DEEPEST = 16
"""Most levels of tables and lists in a configuration; no key has as many."""


def toml_tree(text: str, origin: str) -> dict[str, Any]:
    """The values of a TOML text.

    Raises:
        CurioError: it is not TOML, or nests too deeply.
    """
    try:
        return _parsed(text, origin)
    except ValueError as error:  # also an integer of more digits than Python reads
        raise CurioError(f"{origin} is not valid TOML: {error}", "Correct that line.") from None


def toml_value(raw: str, key: str) -> Any:
    """One TOML value. A text that is not TOML is itself the value; `none` is None.

    Raises:
        CurioError: it nests too deeply.
    """
    try:
        return _parsed(f"value = {raw}", shortened(key))["value"]
    except ValueError:
        return None if raw == "none" else raw


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `(dotted key, value)` for every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_values(tree: Mapping[str, Any], limit: int = 2**63) -> None:
    """Refuse a number that is not finite or beyond what 64 bits hold, and a text that no file or path can hold."""
    for key, value in _leaves(tree):
        if isinstance(value, int | float) and not -limit <= value < limit:
            raise CurioError(f"{key} = {shortened(value)} is not legal: numbers must be finite and below 2^63")
        if re.search("[\0\ud800-\udfff]", f"{key}{value}"):
            raise CurioError(f"{shortened(key)} = {shortened(value)} is not legal: text must be UTF-8 without NUL")


def check_secrets(tree: Mapping[str, Any], variables: Set[str], shortest: int = 8) -> None:
    """Refuse a value that holds a secret of the environment: a configuration is saved and shown.

    Args:
        tree: the configuration.
        variables: environment variables with secrets, beside those whose names say so.
        shortest: characters of the shortest secret (our choice).
    """
    names = [name for name in os.environ if name in variables or re.search(r"(KEY|TOKEN|SECRET|PASSWORD)$", name)]
    for key, value in _leaves(tree):
        for name in names:
            if len(secret := os.environ[name].strip()) >= shortest and secret in str(value):
                raise CurioError(f"{key} holds the secret value of the environment variable {name}", "Leave it out.")


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`(dotted key, value)`, with one for each entry of a list."""
    for key, value in flatten(tree):
        yield from ((key, entry) for entry in (value if isinstance(value, list | tuple) else (value,)))


def _parsed(toml: str, what: str, most_dots: int = 1000) -> dict[str, Any]:
    """The values of a TOML text; ValueError if it is not TOML."""
    try:
        if max(line.count(".") for line in toml.split("\n")) > most_dots:
            raise RecursionError  # tomllib takes minutes for a key of so many parts
        tree = tomllib.loads(toml)
        _check_depth(tree)
    except RecursionError:
        raise CurioError(f"{what} nests brackets or keys too deeply", f"Use at most {DEEPEST} levels.") from None
    return tree


def _check_depth(value: Any, left: int = DEEPEST) -> None:
    if not left:
        raise RecursionError
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check_depth(part, left - 1)
