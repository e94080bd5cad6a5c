"""Checks on Rivya's responses, so that a caller gets only the answer to its own request and never our API key.

A connection is used again only if nothing follows the response on it: one surplus response would answer the next
caller's request. httpx and httpcore show these bytes nowhere, so this module reads their private members;
`tests/flow/test_rivya_transport.py` fails when a release renames them.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import h11
import httpx
from anyio.streams.tls import TLSStream

from app.rivya.errors import RivyaError, RivyaMalformed, RivyaUnreadable

_SHORTEST_KEY: Final = 8
"""A key with fewer characters is not struck out of responses, because it would occur in them by chance."""


class OneAnswerTransport(httpx.AsyncHTTPTransport):
    """Does not use a connection again if anything follows the response on it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The response to a request. Raises `httpx.TransportError`."""
        response = await super().handle_async_request(request)
        response.stream = _OneAnswerStream(response.stream)
        return response


class _OneAnswerStream(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - httpx's own, whose internals are read
        self._stream = stream
        connection = stream._httpcore_stream._stream._connection
        self._protocol: h11.Connection = connection._h11_state
        self._socket_stream = connection._network_stream._stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        if self._has_surplus():
            self._protocol.send_failed()  # httpcore closes a connection in this state
        await self._stream.aclose()

    def _has_surplus(self) -> bool:
        """Whether bytes were received beyond the response; httpcore itself notices those that arrive from now on."""
        trailing_data, _ = self._protocol.trailing_data
        stream = self._socket_stream
        while isinstance(stream, TLSStream):
            if stream._read_bio.pending or stream._ssl_object.pending():
                return True
            stream = stream.transport_stream
        return bool(trailing_data or stream._protocol.read_queue)


def check_head(response: httpx.Response) -> None:
    """Raise RivyaMalformed or RivyaUnreadable for a response that must not be read any further."""
    status, headers = response.status_code, response.headers
    if not 200 <= status <= 599:
        raise RivyaMalformed(f"the answer has the status {status}", sent=True)
    if "content-length" in headers and "transfer-encoding" in headers:
        raise RivyaMalformed("the answer has both Content-Length and Transfer-Encoding", sent=True)
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        # Decoded, it could exceed every bound in a single chunk.
        raise unreadable(f"the answer ({status}) is encoded, which was not asked for", status)


def unreadable(situation: str, status: int) -> RivyaError:
    """The error for a response of unknown content: a 2xx means that the request took effect all the same."""
    if 200 <= status < 300:
        return RivyaUnreadable(situation, status=status)
    return RivyaMalformed(situation, sent=True, status=status)


class KeyFilter:
    """Strikes our API key out of bytes; the length stays the same."""

    def __init__(self, api_key: str) -> None:
        self._key = api_key.encode()
        self._is_needed = len(self._key) >= _SHORTEST_KEY

    def strike(self, data: bytes) -> bytes:
        """The bytes with an asterisk for each character of the key."""
        return data.replace(self._key, b"*" * len(self._key)) if self._is_needed else data

    async def iter_struck(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks without the key, which may be spread over several of them."""
        held = b""
        async for chunk in chunks:
            data = self.strike(held + chunk)
            begun = self._begun(data)
            data, held = data[: len(data) - begun], data[len(data) - begun :]
            if data:
                yield data
        if held:
            yield held

    def _begun(self, data: bytes) -> int:
        """The number of bytes at the end that may be the beginning of the key."""
        longest = min(len(self._key) - 1, len(data)) if self._is_needed else 0
        return next((count for count in range(longest, 0, -1) if self._key.startswith(data[-count:])), 0)
