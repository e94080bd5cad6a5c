"""An answer of Rivya's that is passed on while it comes: its head at once, its body piece by piece, unchanged."""

from collections.abc import AsyncIterator, Mapping, Sequence

import httpx

from app.rivya.errors import RivyaUnavailable


class Passage:
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
