"""Runs the sandbox as a real HTTP server on this machine."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.app import create_sandbox_app
from app.sandbox.responses import TRANSPORT
from app.sandbox.state import Sandbox


@dataclass(frozen=True)
class ServedSandbox:
    """A sandbox that answers at a URL."""

    base_url: str
    sandbox: Sandbox


class _LendingProtocol(HttpToolsProtocol):
    """Lends the transport to the application, so that a fault can cut the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]


class _SandboxServer(uvicorn.Server):
    """A server that stops at once, whatever hangs."""

    def __init__(self, sandbox: Sandbox, *, host: str, port: int) -> None:
        app = create_sandbox_app(sandbox)
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=_LendingProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
            )
        )
        self._sandbox = sandbox

    async def start(self, listener: socket.socket) -> None:
        """Accept connections, without a loop of its own and without touching signals."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[listener])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wake what hangs, finish what is being answered, cut what remains."""
        for given in sockets or []:
            given.close()
        await self._sandbox.close()
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=1)
        while self.server_state.connections:
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        for listener in self.servers:
            await listener.wait_closed()


@contextlib.asynccontextmanager
async def serve_sandbox(
    sandbox: Sandbox | None = None, *, key: str = DEFAULT_KEY, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[ServedSandbox]:
    """Serve a sandbox in the running loop, on a free port unless one is named; stops with nothing left behind.

    Without a sandbox, a fresh one that knows `key` runs at its own pace.
    """
    sandbox = sandbox or Sandbox(keys=(key,))
    listener = _listen(host, port)
    server = _SandboxServer(sandbox, host=host, port=port)
    await server.start(listener)
    try:
        yield ServedSandbox(f"http://{host}:{listener.getsockname()[1]}", sandbox)
    finally:
        await server.shutdown()


def _listen(host: str, port: int) -> socket.socket:
    # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer waits 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
