"""Exchange one request for one bounded answer with Rivya, or open a call that is passed on piece by piece."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from ssl import SSLContext
from typing import Any, Final

import httpx

from app.core.proxies import proxy_for
from app.rivya.errors import RequestWithheld, RivyaUnavailable, RivyaUnreadable

# The moment at which a request leaves: the last at which it can be held back, and the first from which it may act.


BeforeSend = Callable[[], bool]


class SendTrace:
    """Notes whether the first byte of a request was about to leave: from then on it may have taken effect.

    `before_send` is asked right before, once the connection is there; where it says no, RequestWithheld is raised.
    """

    def __init__(self, before_send: BeforeSend | None = None) -> None:
        self.is_sent = False
        self._may_leave = before_send

    async def trace(self, event: str, _details: Mapping[str, object]) -> None:
        """Be told by the HTTP library what it does."""
        if self.is_sent or not event.endswith(".send_request_headers.started"):
            return
        if self._may_leave is not None and not self._may_leave():
            raise RequestWithheld
        self.is_sent = True


@contextmanager
def unavailable(departure: SendTrace, seconds: float) -> Iterator[None]:
    """Turn a time-out of so many seconds, and what httpx raises, into RivyaUnavailable."""
    try:
        yield
    except TimeoutError as error:
        raise RivyaUnavailable(f"no whole answer within {seconds:g} s", sent=departure.is_sent) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        situation = f"the exchange failed: {type(error).__name__}"
        raise RivyaUnavailable(situation, sent=departure.is_sent) from error


# An answer of Rivya's that is passed on while it comes: its head at once, its body piece by piece, unchanged.


class StreamedResponse:
    """One answer under way. Nothing is decoded; a piece is read from the network only when it is asked for."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status_code

    @property
    def raw_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers as they came, repeated ones included."""
        return self._response.headers.raw

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, names in lower case."""
        return dict(self._response.headers)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the body as they come. Raises RivyaUnavailable where they end before the answer does."""
        try:
            async for piece in self._response.aiter_raw():
                yield piece
        except httpx.HTTPError as error:
            raise RivyaUnavailable(f"the answer broke off: {type(error).__name__}", sent=True) from error

    async def aclose(self) -> None:
        """Let go of it: what has not come yet is not wanted any more, and Rivya is told so by the connection's end."""
        await self._response.aclose()


MOST_BODY_BYTES: Final = 4 * 1024 * 1024
_CONNECT_SECONDS: Final = 5.0
_WRITE_SECONDS: Final = 30.0
MOST_CONNECTIONS: Final = 20


@dataclass(frozen=True, slots=True)
class RawResponse:
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
            headers=default_headers(api_key),
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
    ) -> RawResponse:
        """Send a request and read the answer, all within `seconds`.

        Raises RivyaUnavailable where no whole answer came, RivyaUnreadable where it is a 2xx larger than the bound.
        """
        content_type = {} if body is None else {"content-type": "application/json"}
        departure = SendTrace()
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
                return await read_bounded(await self._client.send(request, stream=True), self._most_body_bytes)

    async def open(
        self,
        method: str,
        target: str,
        *,
        silence: float,
        headers: Sequence[tuple[bytes, bytes]] = (),
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> StreamedResponse:
        """Send a request and return as soon as the head of the answer is there; whoever opens it closes it.

        `silence` is how many seconds may pass without a byte from Rivya; the whole has no deadline. Raises
        RivyaUnavailable, and whatever `content` raises.
        """
        departure = SendTrace()
        try:
            request = self._client.build_request(
                method,
                target,
                content=content,
                headers=list(headers),
                timeout=httpx.Timeout(silence, connect=_CONNECT_SECONDS, pool=_CONNECT_SECONDS, write=_WRITE_SECONDS),
                extensions={"trace": departure.trace},
            )
            return StreamedResponse(await self._client.send(request, stream=True))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            situation = f"no answer: {type(error).__name__}"
            raise RivyaUnavailable(situation, sent=departure.is_sent) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def read_bounded(response: httpx.Response, most_body_bytes: int) -> RawResponse:
    """Read the answer to its end, and close it.

    Raises httpx.HTTPError where it breaks off; where it is too large RivyaUnreadable for a 2xx, else RivyaUnavailable.
    """
    try:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > most_body_bytes:
                raise too_large(response.status_code, most_body_bytes)
        return RawResponse(response.status_code, response.headers, bytes(body))
    finally:
        await response.aclose()


def default_headers(api_key: str) -> dict[str, str]:
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


# The way of polls to Rivya: lanes of one connection each, so that no call looks through the connections of others.


IDLE_SECONDS: Final = 5.0
"""A connection unused for so long is closed, as httpx's own pool does."""
_ONE: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_SECONDS)
_NO_BODY: Final = httpx.ByteStream(b"")


class PollConnections:
    """GETs to Rivya, authorised with one key, at most `most` at once. Nothing is retried and no redirect followed.

    The lane that came back last is taken first, so that few requests need few connections.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        most: int,
        verify: SSLContext,
        most_body_bytes: int = MOST_BODY_BYTES,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._url = httpx.URL(base_url)
        self._prefix = self._url.raw_path.rstrip(b"/")
        # Made once; a request made from these few parts costs a fifth of one that a client builds.
        self._headers = httpx.Request("GET", self._url, headers=default_headers(api_key)).headers
        self._proxy = proxy_for(base_url)
        self._verify = verify
        self._most_body_bytes = most_body_bytes
        self._idle_seconds = idle_seconds
        self._room = asyncio.Semaphore(most)
        self._free: deque[tuple[float, httpx.AsyncBaseTransport]] = deque()
        """When each came back, on the event loop's clock, and the lane; the latest is last."""
        self._is_closed = False

    async def get(self, path: str, *, seconds: float, before_send: BeforeSend | None = None) -> RawResponse:
        """Send a GET and read the answer, all within `seconds`.

        Raises RivyaUnavailable where no whole answer came, RivyaUnreadable where it is a 2xx larger than the bound, and
        RequestWithheld where `before_send`, asked right before the first byte leaves, says no.
        """
        departure = SendTrace(before_send)
        # Waiting for a lane, connecting and the TLS handshake each end by themselves before the deadline.
        opening = seconds_to_open(seconds)
        url, target = self._url, self._prefix + path.encode("ascii")
        extensions: dict[str, Any] = {
            "timeout": {"connect": opening, "pool": opening, "read": None, "write": None},
            "trace": departure.trace,
        }
        if self._proxy is None:
            extensions["target"] = target
        else:  # httpcore would send an extension's target to the proxy too, instead of the host to connect to
            url = url.copy_with(raw_path=target)
        request = httpx.Request("GET", url, headers=self._headers, stream=_NO_BODY, extensions=extensions)
        with unavailable(departure, seconds):
            async with asyncio.timeout(seconds), self._lane(opening) as lane:
                return await read_bounded(await lane.handle_async_request(request), self._most_body_bytes)

    async def aclose(self) -> None:
        """Close the connections; that of a request under way closes when it ends."""
        self._is_closed = True
        while self._free:
            await self._free.pop()[1].aclose()

    @asynccontextmanager
    async def _lane(self, opening: float) -> AsyncIterator[httpx.AsyncBaseTransport]:
        """A lane to oneself. It comes back only from an exchange that ended well: no other inherits half an answer."""
        await self._enter(opening)
        try:
            lane = self._free.pop()[1] if self._free else self._make()
            try:
                yield lane
            except BaseException:
                await lane.aclose()
                raise
            await self._give_back(lane)
        finally:
            self._room.release()

    async def _enter(self, opening: float) -> None:
        if not self._room.locked():
            await self._room.acquire()  # at once
            return
        try:
            async with asyncio.timeout(opening):
                await self._room.acquire()
        except TimeoutError as error:
            raise RivyaUnavailable(f"no lane was free within {opening:g} s", sent=False) from error

    async def _give_back(self, lane: httpx.AsyncBaseTransport) -> None:
        if self._is_closed:
            await lane.aclose()
            return
        now = asyncio.get_running_loop().time()
        self._free.append((now, lane))
        if self._free[0][0] < now - self._idle_seconds:
            await self._free.popleft()[1].aclose()

    def _make(self) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport(verify=self._verify, limits=_ONE, proxy=self._proxy)
