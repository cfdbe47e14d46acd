"""Addresses of endpoints, and names of variables with their keys: a key itself is refused, and no message shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

LEGAL = re.compile(r"https?://[a-z0-9._~:/\[\]-]+", re.IGNORECASE)
UNSHOWN = "unshown"
"""Type of the errors whose message must not repeat the value."""


def address_fault(value: object) -> str | None:
    """Why an endpoint's address is not legal, without the value; None if it is."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else urlsplit("")
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        return "is not an address; legal is http(s)://HOST[:PORT][/PATH]"
    if not LEGAL.fullmatch(str(value)):
        return "is more than an address: a name, a password, a key or other signs are in it"
    return None


def _variable_fault(value: object) -> str | None:
    if isinstance(value, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value):
        return None
    return "is not the name of an environment variable, in capital letters; the key itself does not belong here"


def _legal(fault: Callable[[object], str | None], *more: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value not in more and (found := fault(value)):
            raise PydanticCustomError(UNSHOWN, found)  # ty: ignore[invalid-argument-type]  # our own text
        return value

    return BeforeValidator(check)


Address = Annotated[str, _legal(address_fault)]
AddressOrLocal = Annotated[str, _legal(address_fault, "local", "demonstration")]
VariableName = Annotated[str, _legal(_variable_fault)]
