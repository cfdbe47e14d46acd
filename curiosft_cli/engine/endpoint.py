"""An OpenAI-compatible endpoint's address, its key, and the wait that it asks for."""

from __future__ import annotations

import ipaddress
import os
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from curiosft_cli.run.errors import MISSING, CurioError


def read_key(base_url: str, variable: str) -> str:
    """The key from the environment, "" for a loopback address without one.

    Raises:
        CurioError: the address is not one (exit code 2), or the key is missing or unusable (exit code 3).
    """
    try:
        address = urlsplit(base_url)
    except ValueError:
        address = urlsplit("")
    if address.scheme not in ("http", "https") or not address.hostname:
        raise CurioError(f"'{base_url}' is not an address", "Give an OpenAI-compatible endpoint, https://...")
    if address.username or address.password:
        raise CurioError("the endpoint's address holds a name or password", f"Put the key into {variable} instead.")
    key = os.environ.get(variable, "").strip()
    if not key and not is_loopback(address.hostname):
        raise CurioError(f"the environment variable {variable} is not set", f"export {variable}=...", MISSING)
    if not (key.isascii() and key.isprintable()):
        raise CurioError(f"the key in {variable} is not plain text", "Set it again.", MISSING)
    return key


def proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names for this address, if any. Looked up once: a look-up per request is slow."""
    address = urlsplit(base_url)
    if not address.hostname or is_loopback(address.hostname) or proxy_bypass(address.hostname):
        return None
    return getproxies().get(address.scheme)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def retry_after_s(header: str | None, now_s: float, longest_s: float = 300.0) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 without a readable one."""
    if not header:
        return 0.0
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - now_s
        except ValueError:
            return 0.0
    return min(longest_s, max(0.0, wait_s))
