"""A small TCP balancer: each connection goes to the next backend that accepts it; bytes pass through untouched."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress


class Balancer:
    """Knows nothing of HTTP and does no health checks: a backend that refuses is passed over."""

    def __init__(self, backends: Sequence[int]) -> None:
        self._backends = backends
        self._turn = 0
        self._open: set[asyncio.Task[None]] = set()
        self._forgotten: set[asyncio.Task[None]] = set()

    def forget(self) -> None:
        """Lose whatever comes on the connections that are open now, without closing them, as a NAT does."""
        self._forgotten |= self._open

    def lead_to(self, backends: Sequence[int]) -> None:
        """Take new connections there, as a name that moves does."""
        self._backends = backends

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both sides have closed it."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            backend = await self._connect()
            if backend is not None:
                ways = ((reader, backend[1]), (backend[0], writer))
                await asyncio.gather(*(self._pipe(task, *way) for way in ways))
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        """Cut every connection."""
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._turn += 1
        first = self._turn % len(self._backends)
        for port in (*self._backends[first:], *self._backends[:first]):
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def _pipe(self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if task not in self._forgotten:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def balancing(port: int, backends: Sequence[int]) -> AsyncIterator[Balancer]:
    """A balancer on `port`."""
    balancer = Balancer(backends)
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", port)
    try:
        yield balancer
    finally:
        server.close()
        await balancer.close()
