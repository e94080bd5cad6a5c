"""Starts the service, serves until it is told to stop, and stops well."""

import gc
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from app.cli.farewell import Farewell
from app.cli.listening import AddressTaken, close_when_empty, listen
from app.cli.signals import on_stop_signal
from app.core.settings import Settings
from app.fastpath.protocol import BoundedProtocol, ExpressProtocol
from app.main import Service
from app.rivya.schemes import SchemeInvalid

log = structlog.stdlib.get_logger(__name__)

_STOP_SECONDS = 15
_KEEP_ALIVE_SECONDS = 75
"""An idle connection stays so long: longer than with nginx or an ALB (60 s), so that they close it, and not we while a
request of theirs is on its way."""
_NEW_OBJECTS = 50_000
_STOPPED, _FAILED, _REFUSED = 0, 1, 2


class Server(uvicorn.Server):
    """A uvicorn that lets those who wait for a generation go before it waits for their connections to close."""

    def __init__(self, config: uvicorn.Config, service: Service, farewell: Farewell) -> None:
        super().__init__(config)
        self._service = service
        self._farewell = farewell
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
        self._farewell.begin()
        for listener in sockets or ():
            await close_when_empty(listener)
        for server in self.servers:
            server.close()  # else the event loop would ask a closed socket for connections, without a pause
        await self._farewell.idle_connections_gone(lambda: self.server_state.connections)
        await super().shutdown(sockets)


def make_server(service: Service) -> Server:
    """The server, as it runs everywhere: uvloop, httptools, no header that tells what it is."""
    farewell = Farewell(service.app)
    config = uvicorn.Config(
        farewell,
        loop="uvloop",
        http=ExpressProtocol if service.settings.receiver_fast_path else BoundedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    return Server(config, service, farewell)


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
