"""HTTP to Rivya: bounded responses over a pool, streamed responses for relayed calls, connections for polls."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from ssl import SSLContext
from typing import Any, Final

import h11
import httpx

from app.core.proxies import proxy_for
from app.core.records import is_header_value
from app.rivya.errors import RequestWithheld, RivyaError, RivyaMalformed, RivyaUnavailable
from app.rivya.response_checks import KeyFilter, OneAnswerTransport, check_head, unreadable

MOST_BODY_BYTES: Final = 4 * 1024 * 1024
MOST_CONNECTIONS: Final = 20
IDLE_SECONDS: Final = 2.5
"""A connection idle for longer is closed. Many servers close it after 5 s, and a poll may wait on it for its slot."""
_CONNECT_SECONDS: Final = 5.0
_WRITE_SECONDS: Final = 30.0

BeforeSend = Callable[[], Awaitable[bool]]
"""Called on an open connection, right before the first byte of a request; False: do not send it."""


class SendTrace:
    """Records whether a request began to be sent: from then on it may have taken effect.

    If `before_send` returns False, RequestWithheld is raised.
    """

    def __init__(self, before_send: BeforeSend | None = None) -> None:
        self.is_sent = False
        self._before_send = before_send

    async def trace(self, event: str, _details: Mapping[str, object]) -> None:
        """The trace callback of the HTTP library."""
        if self.is_sent or not event.endswith(".send_request_headers.started"):
            return
        if self._before_send is not None and not await self._before_send():
            raise RequestWithheld
        self.is_sent = True


@contextmanager
def _translate_errors(send_trace: SendTrace, seconds: float) -> Iterator[None]:
    """Turn a time-out after `seconds`, and what httpx raises, into RivyaUnavailable or RivyaMalformed."""
    try:
        yield
    except TimeoutError as error:
        raise RivyaUnavailable(f"no whole answer within {seconds:g} s", sent=send_trace.is_sent) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # A violation of the protocol comes from h11; a connection that ends without any response does not.
        origin = error.__cause__ and error.__cause__.__context__
        kind = RivyaMalformed if isinstance(origin, h11.RemoteProtocolError) else RivyaUnavailable
        raise kind(f"the exchange failed: {type(error).__name__}", sent=send_trace.is_sent) from error


class StreamedResponse:
    """A response whose body is still to be read. Nothing is decoded, and nothing read before it is requested."""

    def __init__(self, response: httpx.Response, key_filter: KeyFilter) -> None:
        self._response = response
        self._key_filter = key_filter

    @property
    def status(self) -> int:
        """The HTTP status, 200 to 599."""
        return self._response.status_code

    @property
    def raw_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers, with repeated ones; our API key is struck out."""
        return [(name, self._key_filter.strike(value)) for name, value in self._response.headers.raw]

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, names in lower case."""
        return dict(self._response.headers)

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of server-sent events."""
        return b"text/event-stream" in self._response.headers.get("content-type", "").lower().encode()

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """The bytes of the body as they arrive; our API key is struck out, except of an event stream.

        Raises RivyaUnavailable where the response breaks off.
        """
        chunks = self._response.aiter_raw()
        try:
            async for chunk in chunks if self.is_event_stream else self._key_filter.iter_struck(chunks):
                yield chunk
        except httpx.HTTPError as error:
            raise RivyaUnavailable(f"the answer broke off: {type(error).__name__}", sent=True) from error

    async def aclose(self) -> None:
        """Close the response. If it is incomplete the connection is closed, which stops Rivya from sending the rest."""
        await self._response.aclose()


@dataclass(frozen=True, slots=True)
class RawResponse:
    """A whole response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300


class Transport:
    """A pool of connections to Rivya, authorised with one key. It retries nothing and follows no redirect."""

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
        self._key_filter = KeyFilter(api_key)
        limits = httpx.Limits(max_connections=most_connections, max_keepalive_connections=MOST_CONNECTIONS)
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=default_headers(api_key),
            transport=OneAnswerTransport(verify=verify, limits=limits, proxy=proxy_for(base_url), trust_env=False),
            # It stores nothing: a cookie that Rivya set for one caller must not be sent for another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
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
        """The response to a request, read within `seconds`.

        Raises RivyaUnavailable without a whole response, RivyaUnreadable for a 2xx that is encoded or too large.
        """
        content_type = {} if body is None else {"content-type": "application/json"}
        send_trace = SendTrace()
        request = self._client.build_request(
            method,
            path,
            content=body,
            headers={**content_type, **(headers or {})},
            timeout=httpx.Timeout(seconds, connect=_opening(seconds), pool=_opening(seconds)),
            extensions={"trace": send_trace.trace},
        )
        with _translate_errors(send_trace, seconds):
            # httpx bounds each read; a server that drips bytes would never exceed that.
            async with asyncio.timeout(seconds):
                response = await self._client.send(request, stream=True)
                return await _read_bounded(response, self._most_body_bytes, self._key_filter)

    async def open(
        self,
        method: str,
        target: str,
        *,
        silence: float,
        headers: Sequence[tuple[bytes, bytes]] = (),
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> StreamedResponse:
        """The response to a request as soon as its headers have arrived; the caller closes it.

        `silence` is the most seconds without a byte from Rivya; there is no deadline for the whole.

        Raises RivyaUnavailable, RivyaUnreadable for an encoded 2xx, and what `content` raises.
        """
        send_trace = SendTrace()
        with _translate_errors(send_trace, silence):
            request = self._client.build_request(
                method,
                target,
                content=content,
                headers=list(headers),
                timeout=httpx.Timeout(silence, connect=_CONNECT_SECONDS, pool=_CONNECT_SECONDS, write=_WRITE_SECONDS),
                extensions={"trace": send_trace.trace},
            )
            response = await self._client.send(request, stream=True)
        try:
            check_head(response)
        except RivyaError:
            await response.aclose()
            raise
        return StreamedResponse(response, self._key_filter)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _read_bounded(response: httpx.Response, most_body_bytes: int, key_filter: KeyFilter) -> RawResponse:
    """The whole response without our API key; it is closed afterwards.

    Raises httpx.HTTPError where it breaks off; if it can't be used RivyaUnreadable for a 2xx, else RivyaMalformed.
    """
    try:
        check_head(response)
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > most_body_bytes:
                situation = f"the answer ({response.status_code}) is larger than {most_body_bytes} bytes"
                raise unreadable(situation, response.status_code)
        return RawResponse(response.status_code, response.headers, key_filter.strike(bytes(body)))
    finally:
        await response.aclose()


def default_headers(api_key: str) -> dict[str, str]:
    """The headers of every request. Raises ValueError, without the key, if the key can't be sent in a header."""
    if not is_header_value(api_key):
        raise ValueError("an API key consists of printable ASCII")
    return {
        "authorization": f"Bearer {api_key}",
        "user-agent": f"rivya-receiver/{version('rivya-receiver')}",
        "accept": "application/json",
        "accept-encoding": "identity",
    }


def _opening(seconds: float) -> float:
    """Seconds for each of: waiting for a connection, connecting, the TLS handshake; all end before a deadline."""
    return min(_CONNECT_SECONDS, seconds / 3)


_ONE: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_SECONDS)
_NO_BODY: Final = httpx.ByteStream(b"")


class PollConnections:
    """Sends GETs to Rivya, authorised with one key, at most `most` at once. It retries nothing and follows no redirect.

    Each transport has one connection, so that no call searches a pool. The one released last is used first, so that few
    requests need few connections.
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
        # Created once: a request from these parts costs a fifth of one that a client builds.
        self._headers = httpx.Request("GET", self._url, headers=default_headers(api_key)).headers
        self._proxy = proxy_for(base_url)
        self._verify = verify
        self._most_body_bytes = most_body_bytes
        self._key_filter = KeyFilter(api_key)
        self._idle_seconds = idle_seconds
        self._permits = asyncio.Semaphore(most)
        self._free: deque[tuple[float, httpx.AsyncBaseTransport]] = deque()
        """When each transport was released, on the event loop's clock, and the transport; the latest is last."""
        self._is_closed = False

    async def get(self, path: str, *, seconds: float, before_send: BeforeSend | None = None) -> RawResponse:
        """The response to a GET, read within `seconds`.

        Raises RivyaUnavailable without a whole response, RivyaUnreadable for a 2xx that is encoded or too large, and
        RequestWithheld if `before_send` returns False.
        """
        send_trace = SendTrace(before_send)
        opening = _opening(seconds)
        url, target = self._url, self._prefix + path.encode("ascii")
        extensions: dict[str, Any] = {
            "timeout": {"connect": opening, "pool": opening, "read": None, "write": None},
            "trace": send_trace.trace,
        }
        if self._proxy is None:
            extensions["target"] = target
        else:  # httpcore would send the extension's target to the proxy too, instead of the host to connect to
            url = url.copy_with(raw_path=target)
        request = httpx.Request("GET", url, headers=self._headers, stream=_NO_BODY, extensions=extensions)
        with _translate_errors(send_trace, seconds):
            async with asyncio.timeout(seconds), self._lease(opening) as transport:
                response = await transport.handle_async_request(request)
                return await _read_bounded(response, self._most_body_bytes, self._key_filter)

    async def aclose(self) -> None:
        """Close the idle connections; the others close when their request ends."""
        self._is_closed = True
        while self._free:
            await self._free.pop()[1].aclose()

    @asynccontextmanager
    async def _lease(self, opening: float) -> AsyncIterator[httpx.AsyncBaseTransport]:
        """A transport for one request. After an error it is closed, so that no other request reads half a response."""
        await self._acquire(opening)
        try:
            transport = self._free.pop()[1] if self._free else self._new_transport()
            try:
                yield transport
            except BaseException:
                await transport.aclose()
                raise
            await self._release(transport)
        finally:
            self._permits.release()

    async def _acquire(self, opening: float) -> None:
        if not self._permits.locked():
            await self._permits.acquire()  # at once
            return
        try:
            async with asyncio.timeout(opening):
                await self._permits.acquire()
        except TimeoutError as error:
            raise RivyaUnavailable(f"no connection was free within {opening:g} s", sent=False) from error

    async def _release(self, transport: httpx.AsyncBaseTransport) -> None:
        if self._is_closed:
            await transport.aclose()
            return
        now = asyncio.get_running_loop().time()
        self._free.append((now, transport))
        if self._free[0][0] < now - self._idle_seconds:
            await self._free.popleft()[1].aclose()

    def _new_transport(self) -> httpx.AsyncBaseTransport:
        return OneAnswerTransport(verify=self._verify, limits=_ONE, proxy=self._proxy)
