"""The way of polls to Rivya: lanes of one connection each, so that no call looks through the connections of others."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any, Final

import httpx

from app.core.proxies import proxy_for
from app.rivya.departure import Departure, MayLeave, unavailable
from app.rivya.errors import RivyaUnavailable
from app.rivya.http import (
    MOST_BODY_BYTES,
    Answer,
    headers_of_ours,
    seconds_to_open,
    whole,
)

IDLE_SECONDS: Final = 5.0
"""A connection unused for so long is closed, as httpx's own pool does."""
_ONE: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_SECONDS)
_NO_BODY: Final = httpx.ByteStream(b"")


class Lanes:
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
        self._headers = httpx.Request("GET", self._url, headers=headers_of_ours(api_key)).headers
        self._proxy = proxy_for(base_url)
        self._verify = verify
        self._most_body_bytes = most_body_bytes
        self._idle_seconds = idle_seconds
        self._room = asyncio.Semaphore(most)
        self._free: deque[tuple[float, httpx.AsyncBaseTransport]] = deque()
        """When each came back, on the event loop's clock, and the lane; the latest is last."""
        self._is_closed = False

    async def get(self, path: str, *, seconds: float, may_leave: MayLeave | None = None) -> Answer:
        """Send a GET and read the answer, all within `seconds`.

        Raises RivyaUnavailable where no whole answer came, RivyaUnreadable where it is a 2xx larger than the bound, and
        RivyaNotAsked where `may_leave`, asked right before the first byte leaves, says no.
        """
        departure = Departure(may_leave)
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
                return await whole(await lane.handle_async_request(request), self._most_body_bytes)

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
