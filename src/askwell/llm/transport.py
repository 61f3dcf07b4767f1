"""How a request gets to an endpoint: over HTTP with aiohttp, or to a function in the same process."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import aiohttp

from askwell.recipes import Endpoint


class Response(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Unreachable(ConnectionError):
    """Nobody took the connection: nothing was sent."""


class Transport(Protocol):
    """Carries one request. Raises Unreachable where nothing was sent, ConnectionError where an answer was lost."""

    async def send(self, body: bytes) -> Response: ...

    async def close(self) -> None: ...


class Http:
    """An endpoint's chat completions over HTTP. The key goes into one header of this session and nowhere else."""

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        self.url = endpoint.base_url.rstrip("/") + "/chat/completions"
        # Time limits are the caller's; connections stay open, as many as calls are in flight.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def send(self, body: bytes) -> Response:
        try:
            # A redirect is not followed: it would carry the conversation to a host that nobody named.
            async with self._session.post(self.url, data=body, allow_redirects=False) as response:
                return Response(response.status, response.headers, await response.read())
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(str(error)) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        await self._session.close()


class InProcess:
    """A function from a request's body to (status, headers, body): a simulation."""

    def __init__(self, answer: Callable[[dict[str, Any]], Awaitable[tuple[int, Mapping[str, str], bytes]]]) -> None:
        self._answer = answer

    async def send(self, body: bytes) -> Response:
        return Response(*await self._answer(json.loads(body)))

    async def close(self) -> None:
        pass
