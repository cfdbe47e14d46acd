"""One POST to an OpenAI-compatible endpoint through the openai client, over its aiohttp transport.

Its retries and its parsing are off: what is tried again, and when, is decided where budget and overload are known.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from curiosft_cli.engine.answers import Fault
from curiosft_cli.engine.endpoint import proxy_for

NO_KEY = "none"
"""The client will not do without a key; a server on this machine does not look at it."""


class Refused(Exception):
    """The endpoint answered with an error.

    Args:
        status: of HTTP.
        retry_after: its Retry-After header.
        content: what it said.
    """

    def __init__(self, status: int, retry_after: str | None, content: bytes) -> None:
        super().__init__(str(status))
        self.status = status
        self.retry_after = retry_after
        self.content = content


class Wire:
    """The open connections to one endpoint; for one event loop.

    Args:
        base_url: the endpoint.
        secret: its key, "" for none.
        connections: open at most.
    """

    def __init__(self, base_url: str, secret: str, connections: int) -> None:
        import aiohttp
        import openai

        self._unreachable = aiohttp.ClientConnectorError
        self._refused = openai.APIStatusError
        self._broken = (openai.APIConnectionError, aiohttp.ClientError, OSError)
        # The one deadline, around a whole request, is the caller's; proxies are looked up once, and not for loopback.
        transport = openai.DefaultAioHttpClient(
            timeout=None,
            proxy=proxy_for(base_url),
            trust_env=False,
            verify=ssl.create_default_context(),
            limits=type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=connections),
        )
        self._client = openai.AsyncOpenAI(
            api_key=secret or NO_KEY, base_url=base_url, max_retries=0, http_client=transport
        )
        # What the environment says of an account at OpenAI is no business of another endpoint.
        self._client.organization = self._client.project = None

    async def post(self, path: str, body: Mapping[str, object]) -> bytes:
        """The answer to some JSON, as it came.

        Raises:
            Refused: the endpoint says no.
            Fault: there was no whole answer.
            UnicodeEncodeError: the body holds half characters, which nothing can send.
        """
        try:
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
