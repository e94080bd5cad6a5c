"""The event loop of the tests."""

import asyncio
from typing import Any


class TidyLoop(asyncio.SelectorEventLoop):
    """Cuts, at its end, the connections that a test's servers still have: one may be accepted as its server stops.

    Nobody can wait for such a connection, and what is left open would fail the test in which the collector finds it.
    Connections that were opened from here stay as they are: to leave one open is a mistake that must show.
    """

    def close(self) -> None:
        if not self.is_closed():
            transports: list[Any] = list(self._transports.values())  # type: ignore[attr-defined] # asyncio's own list
            for transport in transports:
                if transport._server is not None:
                    transport.abort()
            self.run_until_complete(asyncio.sleep(0))
        super().close()
