"""The sandbox as an ASGI application and as an HTTP server on this machine, in a program or alone."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import typer
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.admin import admin_routes
from app.sandbox.responses import TRANSPORT, RivyaError
from app.sandbox.routes import OPERATIONS
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox


@dataclass(frozen=True)
class ServedSandbox:
    """A sandbox and the URL where it is served."""

    base_url: str
    sandbox: Sandbox


class _TransportProtocol(HttpToolsProtocol):
    """Gives the transport to the application, so that a fault can cut the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]


class _SandboxServer(uvicorn.Server):
    """A server that stops at once, even while calls hang."""

    def __init__(self, sandbox: Sandbox, *, host: str, port: int) -> None:
        app = _create_app(sandbox)
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=_TransportProtocol,
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
        """Accept connections in the running loop; signals are left alone."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[listener])

    async def stop(self) -> None:
        """End what hangs, finish the responses under way, and abort the other connections."""
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
        await server.stop()


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


def _create_app(sandbox: Sandbox) -> Starlette:
    routes = [operation.route(sandbox) for operation in OPERATIONS]
    handlers = {HTTPException: _respond, RivyaError: _respond}
    return Starlette(routes=[*routes, *admin_routes(sandbox)], exception_handlers=handlers)


async def _respond(_: Request, error: Exception) -> Response:
    match error:
        case RivyaError():
            return error.response()
        case HTTPException():
            return RivyaError("not_found", "There is no such route.", status=error.status_code).response()
    raise error


def run_sandbox(host: str, port: int, *, speed: float, keys: list[str] | None) -> int:
    """Serve at `host` and `port` (0: any free port); the exit status is 1 if listening there is not possible."""
    sandbox = Sandbox(keys=keys or [DEFAULT_KEY], settings=SandboxSettings(speed=speed))
    try:
        uvloop.run(_serve(sandbox, host, port))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        sys.stderr.write(f"--host, --port: got {host} and {port}; can't listen there ({reason})\n")
        return 1
    return 0


async def _serve(sandbox: Sandbox, host: str, port: int) -> None:
    stop = asyncio.Event()
    async with serve_sandbox(sandbox, host=host, port=port) as served:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        typer.echo(f"""sandbox Rivya at {served.base_url}; a receiver on this machine takes it for Rivya with

  RIVYA_BASE_URL={served.base_url} RIVYA_API_KEY={next(iter(sandbox.keys))}

it misbehaves as {served.base_url}/sandbox/faults says, and tells all it knows at {served.base_url}/sandbox/state \
(Ctrl-C ends it)""")
        await stop.wait()
