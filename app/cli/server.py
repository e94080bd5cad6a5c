"""Starts the service, serves until it is told to stop, and stops well."""

import asyncio
import gc
import select
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import structlog
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from app.core.settings import Settings
from app.fastpath.application import FastHandler, FastPathApp
from app.fastpath.protocol import BoundedProtocol, FastPathProtocol
from app.main import Service
from app.rivya.schemes import SchemeInvalid

log = structlog.stdlib.get_logger(__name__)


# Takes the address to listen at, before anything else is started, and gives it up without losing a caller.


_BACKLOG = 2048
_ACCEPT_INTERVAL = 0.002
_MOST_ACCEPT_LOOKS = 500


class AddressTaken(Exception):
    """The address can't be listened at; the text names the variables."""


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port` (0: any free one). Raises `AddressTaken`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named so that the event loop recognises TCP, and switches Nagle's algorithm off.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # At once: until somebody listens, a second process may bind the same address, and neither would know.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        message = (
            f"RECEIVER_HOST, RECEIVER_PORT: got {host} and {port}; can't listen there "
            f"({error.strerror or type(error).__name__}): give an address of this machine and a free port"
        )
        raise AddressTaken(message) from error
    return listener


async def close_when_empty(listener: socket.socket) -> None:
    """Refuse new connections once those in the kernel's queue have been accepted, or after 1 second.

    Closed with connections in the queue, the kernel would reset them: callers that believed to be connected.
    """
    listener.listen(0)  # a queue as short as can be: under load it might never be empty
    for _ in range(_MOST_ACCEPT_LOOKS):
        if not select.select([listener], [], [], 0)[0]:
            break
        await asyncio.sleep(_ACCEPT_INTERVAL)
    listener.shutdown(
        socket.SHUT_RDWR
    )  # now, whoever else holds the socket: the event loop closes it when it comes to it
    listener.close()


# Being told to stop: SIGTERM from whoever runs the service, SIGINT from the keyboard.


_NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_stop_signal(stop: Callable[[int], object]) -> Iterator[None]:
    """Call `stop` with the signal's number, in the running event loop, as often as it comes."""
    loop = asyncio.get_running_loop()
    for number in _NUMBERS:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in _NUMBERS:
            loop.remove_signal_handler(number)


# Says goodbye to clients that keep connections: once told to stop, every answer ends its connection.


_CLOSE = (b"connection", b"close")
_DRAIN_INTERVAL = 0.02
_MOST_DRAIN_LOOKS = 50


@runtime_checkable
class _Cycle(Protocol):
    """A request as uvicorn keeps it."""

    response_complete: bool


class ConnectionDrain:
    """ASGI middleware: passes everything on, and from `begin` on adds `Connection: close` to every answer.

    To those of the lanes, which don't pass through here, the protocol adds it.
    """

    def __init__(self, app: FastPathApp) -> None:
        self._app = app
        self.is_leaving = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_closing(message: Message) -> None:
            if self.is_leaving and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), _CLOSE]
            await send(message)

        await self._app(scope, receive, send_closing if scope["type"] == "http" else send)

    def handler(self, path: str) -> FastHandler | None:
        """The application's own."""
        return self._app.handler(path)

    def begin(self) -> None:
        """We are about to stop."""
        self.is_leaving = True

    async def idle_connections_gone(self, connections: Callable[[], Collection[object]]) -> None:
        """Return when no connection is without a request any more, after 1 second at most.

        A request may be on its way on any of them: closed at once, its sender would get no answer at all.
        """
        for _ in range(_MOST_DRAIN_LOOKS):
            await asyncio.sleep(_DRAIN_INTERVAL)  # what was accepted just now becomes a connection
            if not any(_is_idle(each) for each in connections()):
                return


def _is_idle(connection: object) -> bool:
    cycle = getattr(connection, "cycle", None)
    return not isinstance(cycle, _Cycle) or cycle.response_complete


_STOP_SECONDS = 15
_KEEP_ALIVE_SECONDS = 75
"""An idle connection stays so long: longer than with nginx or an ALB (60 s), so that they close it, and not we while a
request of theirs is on its way."""
_NEW_OBJECTS = 50_000
_STOPPED, _FAILED, _REFUSED = 0, 1, 2


class Server(uvicorn.Server):
    """A uvicorn that lets those who wait for a generation go before it waits for their connections to close."""

    def __init__(self, config: uvicorn.Config, service: Service, drain: ConnectionDrain) -> None:
        super().__init__(config)
        self._service = service
        self._drain = drain
        self.gave_up: str | None = None
        """Why serving made no sense."""

    def give_up(self, reason: str) -> None:
        """Stop, because `reason`."""
        self.gave_up = reason
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop when told to, and leave it at that: uvicorn's own raises the signal again, and dies of it."""
        with on_stop_signal(lambda number: self.handle_exit(number, None)):
            yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, answer those who wait with what is known and those who are about to ask, then stop."""
        self._service.release_callers()
        self._drain.begin()
        for listener in sockets or ():
            await close_when_empty(listener)
        for server in self.servers:
            server.close()  # else the event loop would ask a closed socket for connections, without a pause
        await self._drain.idle_connections_gone(lambda: self.server_state.connections)
        await super().shutdown(sockets)


def make_server(service: Service) -> Server:
    """The server, as it runs everywhere: uvloop, httptools, no header that tells what it is."""
    drain = ConnectionDrain(service.app)
    config = uvicorn.Config(
        drain,
        loop="uvloop",
        http=FastPathProtocol if service.settings.receiver_fast_path else BoundedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    return Server(config, service, drain)


async def serve_until_stopped(settings: Settings) -> int:
    """Serve; the exit status: 0 stopped when told to, 1 could not start, 2 settings that contradict what is stored."""
    try:
        listener = listen(settings.receiver_host, settings.receiver_port)
        service = Service(settings)
    except AddressTaken as error:
        return _refuse(str(error))
    except SchemeInvalid as error:
        return _refuse(f"RIVYA_SIGNATURE_SCHEME: got {settings.rivya_signature_scheme!r}; {error}")
    log.info("start.listening", host=settings.receiver_host, port=listener.getsockname()[1])
    server = make_server(service)
    service.give_up = server.give_up
    _spare_the_collector()
    await server.serve(sockets=[listener])
    if server.gave_up is not None:
        return _refuse(server.gave_up)
    return _STOPPED if server.started else _FAILED


def _spare_the_collector() -> None:
    """Look for cycles rarely, and never among what was made at start.

    Python looks after every 700 new objects, which is every few deliveries, and each time through a part of all that
    the service consists of: a sixth of its time under load. What is under way is bounded, and none of it is cyclic.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


def _refuse(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return _REFUSED
