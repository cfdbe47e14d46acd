"""Whether the Hugging Face hub can be reached, found out once and within seconds."""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

OFFLINE = "HF_HUB_OFFLINE"
REASON = "CURIOSFT_HUB_UNREACHABLE"
"""Tells child processes why the hub is not asked."""


def use_hub() -> str | None:
    """Call it before a library asks the hub. If nothing answers there, the libraries use their local cache alone.

    Without this they try for minutes. Child processes inherit the setting. A user's own `HF_HUB_OFFLINE` stays.

    Returns:
        why the hub is not asked; None where it is, or where the user switched it off.
    """
    if REASON in os.environ or OFFLINE in os.environ:
        return os.environ.get(REASON)
    reason = _unreachable()
    if reason is not None:
        os.environ |= {OFFLINE: "1", REASON: reason}
        for name in ("huggingface_hub.constants", "datasets.config"):
            if (module := sys.modules.get(name)) is not None:
                setattr(module, OFFLINE, True)
    return reason


@cache
def _unreachable(timeout_s: float = 5.0, standard_port: int = 443) -> str | None:
    """Why no connection to the hub, or to the proxy in front of it, can be opened; None where one can."""
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    proxy = None if proxy_bypass(address.hostname or "") else getproxies().get(address.scheme)
    target = urlsplit(proxy) if proxy else address
    try:
        socket.create_connection((target.hostname or "", target.port or standard_port), timeout_s).close()
    except (OSError, ValueError) as error:
        return f"{target.hostname} cannot be reached ({error})"
    return None
