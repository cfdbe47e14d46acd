"""One HTTP request to an endpoint: connections, TLS, proxies and the key.

It uses the openai client over aiohttp. That client's own retries and parsing are off, since only `client.py` knows the
budget and the overload.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from curiosft_cli.engine.endpoint.outcomes import Fault
from curiosft_cli.run.address import address_fault
from curiosft_cli.run.errors import MISSING, CurioError

NO_KEY = "none"
"""The openai client demands a key; a server without one ignores it."""


@dataclass(eq=False)
class Refused(Exception):
    """The endpoint responded with an error: its HTTP status, Retry-After header and body."""

    status: int
    retry_after: str | None
    content: bytes


class Wire:
    """The open connections to one endpoint; for one event loop.

    Args:
        base_url: the endpoint.
        secret: its key, "" for none.
        connections: open at most.
        direct: pass by the environment's proxy.
    """

    def __init__(self, base_url: str, secret: str, connections: int, *, direct: bool = False) -> None:
        import aiohttp
        import openai

        self._unreachable = aiohttp.ClientConnectorError
        self._refused = openai.APIStatusError
        self._broken = (openai.APIConnectionError, aiohttp.ClientError, OSError)
        # The one deadline, around a whole request, is the caller's. Proxies are looked up once, and not for loopback.
        transport = openai.DefaultAioHttpClient(
            timeout=None,
            proxy=None if direct else proxy_for(base_url),
            trust_env=False,
            verify=ssl.create_default_context(),
            limits=type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=connections),
        )
        self._client = openai.AsyncOpenAI(
            api_key=secret or NO_KEY, base_url=base_url, max_retries=0, http_client=transport
        )
        # The environment's account at OpenAI must not reach another endpoint.
        self._client.organization = self._client.project = None

    async def send(self, path: str, body: Mapping[str, object] | None = None) -> bytes:
        """The response to some JSON (POST), or to no body (GET), as it came.

        Raises:
            Refused: its status is an error.
            Fault: there was no whole response.
            UnicodeEncodeError: the body holds half characters, which nothing can send.
        """
        try:
            if body is None:
                return await self._client.get(path, cast_to=bytes)
            return await self._client.post(path, cast_to=bytes, body=body)
        except self._refused as error:
            raise Refused(
                error.status_code, error.response.headers.get("Retry-After"), error.response.content
            ) from None
        except self._broken as error:
            causes = _causes(error)
            found = next((cause for cause in causes if isinstance(cause, self._unreachable)), causes[-1])
            unreachable = isinstance(found, self._unreachable)
            raise Fault("connection", str(found) or type(found).__name__, unreachable=unreachable) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what it wraps, the innermost last."""
    return [error, *(_causes(error.__cause__) if error.__cause__ else ())]


def check_listening(base_url: str, patience_s: float = 5.0) -> None:
    """Tell a refused connection or an unknown host at once, before a model's files are read.

    A server that only takes its time, and one behind a proxy, is left to the requests.

    Raises:
        CurioError: nobody listens there (exit code 3).
    """
    address = urlsplit(base_url)
    if proxy_for(base_url):
        return
    port = address.port or {"https": 443}.get(address.scheme, 80)
    try:
        socket.create_connection((address.hostname or "", port), patience_s).close()
    except TimeoutError:
        return
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that no name can be
        why = getattr(error, "strerror", None) or str(error)
        raise CurioError(f"{base_url} does not answer: {why}", "Check the address and the server.", MISSING) from None


def read_key(base_url: str, variable: str, *, required: bool = True) -> str:
    """The key from the environment; "" where there is none and the address is loopback or none is `required`.

    Raises:
        CurioError: the address is not one (exit code 2), or the key is missing or unusable (exit code 3).
    """
    if fault := address_fault(base_url):
        raise CurioError(f"the endpoint's address {fault}", f"A key belongs into the environment variable {variable}.")
    key = os.environ.get(variable, "").strip()
    if required and not key and not is_loopback(urlsplit(base_url).hostname or ""):
        raise CurioError(f"the environment variable {variable} is not set", f"export {variable}=...", MISSING)
    if not (key.isascii() and key.isprintable()):
        raise CurioError(f"the key in {variable} is not plain text", "Set it again.", MISSING)
    return key


def proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names for this address, if any. A look-up per request would be slow."""
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
    """Seconds that a Retry-After header demands, as a number or a date; 0 without a readable one."""
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
