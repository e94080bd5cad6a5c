"""Exchange one request for one bounded answer with Rivya, or open a call that is passed on piece by piece."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from ssl import SSLContext
from typing import Final

import httpx

from app.core.proxies import proxy_for
from app.rivya.departure import Departure, unavailable
from app.rivya.errors import RivyaUnavailable, RivyaUnreadable
from app.rivya.passage import Passage

MOST_BODY_BYTES: Final = 4 * 1024 * 1024
_CONNECT_SECONDS: Final = 5.0
_WRITE_SECONDS: Final = 30.0
MOST_CONNECTIONS: Final = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300


class Transport:
    """One pool of connections to Rivya, authorised with one key. Nothing is retried and no redirect followed."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        most_body_bytes: int = MOST_BODY_BYTES,
        verify: SSLContext,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        self._most_body_bytes = most_body_bytes
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=headers_of_ours(api_key),
            verify=verify,
            limits=httpx.Limits(max_connections=most_connections, max_keepalive_connections=MOST_CONNECTIONS),
            cookies=no_cookies(),
            proxy=proxy_for(base_url),
            trust_env=False,
        )

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        seconds: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and read the answer, all within `seconds`.

        Raises RivyaUnavailable where no whole answer came, RivyaUnreadable where it is a 2xx larger than the bound.
        """
        content_type = {} if body is None else {"content-type": "application/json"}
        departure = Departure()
        request = self._client.build_request(
            method,
            path,
            content=body,
            headers={**content_type, **(headers or {})},
            timeout=_timeout(seconds),
            extensions={"trace": departure.trace},
        )
        with unavailable(departure, seconds):
            # httpx bounds each read; a server that drips bytes would never exceed that.
            async with asyncio.timeout(seconds):
                return await whole(await self._client.send(request, stream=True), self._most_body_bytes)

    async def open(
        self,
        method: str,
        target: str,
        *,
        silence: float,
        headers: Sequence[tuple[bytes, bytes]] = (),
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> Passage:
        """Send a request and return as soon as the head of the answer is there; whoever opens it closes it.

        `silence` is how many seconds may pass without a byte from Rivya; the whole has no deadline. Raises
        RivyaUnavailable, and whatever `content` raises.
        """
        departure = Departure()
        try:
            request = self._client.build_request(
                method,
                target,
                content=content,
                headers=list(headers),
                timeout=httpx.Timeout(silence, connect=_CONNECT_SECONDS, pool=_CONNECT_SECONDS, write=_WRITE_SECONDS),
                extensions={"trace": departure.trace},
            )
            return Passage(await self._client.send(request, stream=True))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            situation = f"no answer: {type(error).__name__}"
            raise RivyaUnavailable(situation, sent=departure.begun) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def whole(response: httpx.Response, most_body_bytes: int) -> Answer:
    """Read the answer to its end, and close it.

    Raises httpx.HTTPError where it breaks off; where it is too large RivyaUnreadable for a 2xx, else RivyaUnavailable.
    """
    try:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > most_body_bytes:
                raise too_large(response.status_code, most_body_bytes)
        return Answer(response.status_code, response.headers, bytes(body))
    finally:
        await response.aclose()


def headers_of_ours(api_key: str) -> dict[str, str]:
    """What every request carries. Raises ValueError for a key that is no header value, without showing it."""
    if not is_header_value(api_key):
        raise ValueError("an API key consists of printable ASCII")
    return {
        "authorization": f"Bearer {api_key}",
        "user-agent": f"rivya-receiver/{version('rivya-receiver')}",
        "accept": "application/json",
        "accept-encoding": "identity",  # a compressed answer could exceed the bound in a single chunk
    }


def no_cookies() -> CookieJar:
    """Connections serve all callers: a cookie that Rivya set for one must not travel with another."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def is_header_value(text: str) -> bool:
    """Tell whether a text can be sent in a header as it is."""
    return bool(text) and text.isascii() and text.isprintable() and text == text.strip()


def seconds_to_open(seconds: float) -> float:
    """How long each of these may take: to wait for a connection, to connect, the TLS handshake; of so many seconds."""
    return min(_CONNECT_SECONDS, seconds / 3)


def _timeout(seconds: float) -> httpx.Timeout:
    """Let waiting for a connection, connecting and the TLS handshake each end by themselves before the deadline."""
    opening = seconds_to_open(seconds)
    return httpx.Timeout(seconds, connect=opening, pool=opening)


def too_large(status: int, most: int) -> RivyaUnavailable | RivyaUnreadable:
    """An answer that exceeds the bound says something if it is a 2xx, though not what."""
    situation = f"the answer ({status}) is larger than {most} bytes"
    if 200 <= status < 300:
        return RivyaUnreadable(situation, status=status)
    return RivyaUnavailable(situation, sent=True, status=status)
