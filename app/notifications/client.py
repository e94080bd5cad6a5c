"""Sends notifications to URLs that programs chose, and only to addresses that were checked.

A name is resolved once per attempt, all its addresses are checked, and the connection goes to one of these addresses,
so that a name which changes its address between check and connection gains nothing. The name is still what TLS asks
for and verifies, and what the header Host has. No connection is kept: two names on one address would share it, though
TLS verified it for one of them only.
"""

import asyncio
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final

import httpcore
import httpx

from app.core.clock import Clock
from app.core.errors import tls_cause
from app.core.urls import Address, AllowList, Target, UrlRejected, check_addresses, parse_target
from app.notifications.models import Result
from app.rivya.errors import read_retry_after

SECONDS: Final = 15.0
_CONNECT_SECONDS: Final = 5.0
"""For each address; the next one is tried after it."""
_CHECK_SECONDS: Final = 2.0
_MOST_KEPT_BYTES: Final = 1024
_MOST_READ_BYTES: Final = 32 * 1024
"""Of a whole answer; otherwise one that begins with endless 103s would take up the loop until the attempt ends."""
_READ_AT_ONCE: Final = 4 * 1024
_MOST_LOOKUPS: Final = 64
_MOST_LOOKUPS_OF_CHECKS: Final = 16
"""Apart, so that no caller keeps notifications from being sent with names whose servers do not answer."""

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
"""The addresses of a name. Raises `OSError`."""

_HEADERS: Final = {
    "user-agent": f"rivya-receiver/{version('rivya-receiver')}",
    "content-type": "application/json",
    "accept": "*/*",
    "accept-encoding": "identity",
    "connection": "close",
}


class NotificationClient:
    """Makes attempts: no retries, no redirects, no proxies, no cookies, and 15 s for the whole of each."""

    def __init__(
        self, clock: Clock, *, verify: ssl.SSLContext, resolve: Resolve | None = None, seconds: float = SECONDS
    ) -> None:
        self._clock = clock
        self._resolve = resolve or _Resolver(_MOST_LOOKUPS).resolve
        self._resolve_to_check = resolve or _Resolver(_MOST_LOOKUPS_OF_CHECKS).resolve
        self._seconds = seconds
        self._transport = httpx.AsyncHTTPTransport(
            verify=verify, trust_env=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )
        pool = self._transport._pool  # noqa: SLF001 - httpx has no parameter for the backend
        pool._network_backend = _BoundedBackend(pool._network_backend)  # noqa: SLF001

    async def check(self, url: str, allow: AllowList) -> None:
        """Raise `UrlRejected` if nothing may be sent to this URL.

        A name that can't be resolved within 2 s passes: each attempt checks it again. Plain http passes only if it is
        certain to be allowed.
        """
        target = parse_target(url, allow)
        if target.address is not None or allow.has_host(target.host):
            return
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                addresses = await self._resolve_to_check(target.host)
        except OSError:  # TimeoutError is one
            if target.scheme != "https":
                raise UrlRejected("The URL must use https, as its name can't be resolved now.") from None
            return
        check_addresses(target, addresses, allow)

    async def send(self, url: str, body: bytes, headers: Mapping[str, str], *, allow: AllowList) -> Result:
        """The result of one POST. Raises nothing but `CancelledError`.

        Its error is one of url_rejected, name_unresolved, connect_failed, tls_failed, timed_out and broken_off.
        """
        began, deadline = time.monotonic(), asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._open(url, body, headers, allow)
        except _FAILURES as error:
            return Result(at=self._clock.now(), error=_word(error), milliseconds=_milliseconds(began))
        sample = await _read(response, deadline)
        return Result(
            at=self._clock.now(),
            status=response.status_code,
            milliseconds=_milliseconds(began),
            excerpt=sample.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}"),
            retry_after=read_retry_after(response.headers),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _open(self, url: str, body: bytes, headers: Mapping[str, str], allow: AllowList) -> httpx.Response:
        """The response, its body unread. Raises `_FAILURES`."""
        target = parse_target(url, allow)
        addresses = [target.address] if target.address is not None else await self._resolve(target.host)
        check_addresses(target, addresses, allow)
        failure: Exception = OSError("the name has no address")
        for address in addresses:
            try:
                return await self._transport.handle_async_request(_request(target, address, body, headers))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # nothing was sent
                failure = error
        raise failure


class _BoundedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections from which `_MOST_READ_BYTES` are read at most."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:  # noqa: ANN401
        """As in `httpcore`."""
        return _BoundedStream(await self._backend.connect_tcp(*arguments, **options))


class _BoundedStream(httpcore.AsyncNetworkStream):
    """Passes on everything to the stream of `httpcore`; small reads let other tasks run between them."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._rest = _MOST_READ_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's own
        """At most `max_bytes`. Raises `httpcore.ReadError` where the answer is too large."""
        if self._rest <= 0:
            raise httpcore.ReadError("the answer is too large")
        data = await self._stream.read(min(max_bytes, _READ_AT_ONCE), timeout)
        self._rest -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """As in `httpcore`."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """As in `httpcore`."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401
        """As in `httpcore`."""
        return self._stream.get_extra_info(info)

    async def start_tls(self, *arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:  # noqa: ANN401
        """As in `httpcore`."""
        return _BoundedStream(await self._stream.start_tls(*arguments, **options))


_FAILURES: Final = (UrlRejected, OSError, httpx.HTTPError, httpx.InvalidURL)


def _word(error: Exception) -> str:
    """The word for a failure in `Result.error`."""
    match error:
        case UrlRejected():
            return "url_rejected"
        case TimeoutError() | httpx.TimeoutException():
            return "timed_out"
        case OSError():
            return "name_unresolved"
        case httpx.ConnectError():
            return "connect_failed" if tls_cause(error) is None else "tls_failed"
    return "broken_off"


def _request(target: Target, address: Address, body: bytes, headers: Mapping[str, str]) -> httpx.Request:
    host = f"[{address}]" if address.version == 6 else str(address)
    return httpx.Request(
        "POST",
        f"{target.scheme}://{host}:{target.port}{target.path}",
        headers={**headers, **_HEADERS, "host": target.authority},
        content=body,
        extensions={
            "sni_hostname": target.host,  # TLS asks for this name and verifies it, not the address
            "timeout": {"connect": _CONNECT_SECONDS, "read": None, "write": None, "pool": None},
        },
    )


async def _read(response: httpx.Response, deadline: float) -> bytes:
    """The beginning of the body. It decides nothing, so that it may break off."""
    sample = bytearray()
    with suppress(TimeoutError, httpx.HTTPError):
        try:
            async with asyncio.timeout_at(deadline):
                async for chunk in response.aiter_raw():
                    sample += chunk
                    if len(sample) >= _MOST_KEPT_BYTES:
                        break
        finally:
            await response.aclose()
    return bytes(sample[:_MOST_KEPT_BYTES])


def _milliseconds(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


class _Resolver:
    """Resolves names in threads of its own: those of the loop are few, and names of dead servers would fill them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running = 0

    async def resolve(self, name: str) -> list[Address]:
        """The addresses of a name. Raises `OSError`, also if too many names are being resolved."""
        if self._running >= self._most:
            raise OSError("too many names are being resolved")
        loop = asyncio.get_running_loop()
        looked_up: asyncio.Future[list[Address] | OSError] = loop.create_future()

        def finish(result: list[Address] | OSError) -> None:
            self._running -= 1
            if not looked_up.done():  # the caller may have gone
                looked_up.set_result(result)

        def look_up() -> None:
            result = _addresses(name)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(finish, result)

        self._running += 1
        threading.Thread(target=look_up, name="resolve", daemon=True).start()  # a daemon holds up no exit
        result = await looked_up
        if isinstance(result, OSError):
            raise result
        return result


def _addresses(name: str) -> list[Address] | OSError:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return OSError(str(error))
    return [ipaddress.ip_address(answer[4][0]) for answer in answers]
