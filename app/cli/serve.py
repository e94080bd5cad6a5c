"""Starts the service, serves until it is told to stop, and stops well."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from app.cli.listening import AddressTaken, listen
from app.cli.signals import on_stop_signal
from app.core.errors import DatabaseUnavailable
from app.core.sealing import SealBroken
from app.core.settings import Settings
from app.main import Service, SettingsContradict

log = structlog.stdlib.get_logger(__name__)

_MOST_ATTEMPTS = 60
_STOP_SECONDS = 15
_STOPPED, _FAILED, _REFUSED = 0, 1, 2


class Server(uvicorn.Server):
    """A uvicorn that lets those who wait for a generation go before it waits for their connections to close."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop when told to, and leave it at that: uvicorn's own raises the signal again, and dies of it."""
        with on_stop_signal(lambda number: self.handle_exit(number, None)):
            yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer long polls at once with what is known, then stop as uvicorn does."""
        self._service.waiting.stop()
        await super().shutdown(sockets)


def make_server(service: Service) -> Server:
    """The server, as it runs everywhere: uvloop, httptools, no header that tells what it is."""
    config = uvicorn.Config(
        service.app,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    return Server(config, service)


async def serve_until_stopped(settings: Settings) -> int:
    """Serve; the exit status: 0 stopped when told to, 1 could not start, 2 settings that contradict what is stored."""
    try:
        listener = listen(settings.receiver_host, settings.receiver_port)
        service = Service(settings)
    except (AddressTaken, SettingsContradict) as error:
        return _refuse(str(error))
    log.info("start.listening", host=settings.receiver_host, port=listener.getsockname()[1])
    preparing = asyncio.create_task(_prepare(service))
    try:
        with on_stop_signal(lambda _: preparing.cancel()):
            is_prepared = await preparing
    except SealBroken as error:
        await service.close()
        return _refuse(f"RECEIVER_ENCRYPTION_KEYS: {error}")
    except asyncio.CancelledError:
        await service.close()
        return _STOPPED
    if not is_prepared:
        await service.close()
        return _FAILED
    server = make_server(service)
    await server.serve(sockets=[listener])
    return _STOPPED if server.started else _FAILED


async def _prepare(service: Service) -> bool:
    """Migrate and load secrets, waiting for a database that is still starting itself."""
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        try:
            await service.prepare()
        except DatabaseUnavailable as error:
            log.warning("start.database_unavailable", attempt=attempt, error=type(error.__cause__).__name__)
            await asyncio.sleep(1)
        else:
            return True
    log.error("start.gave_up", attempts=_MOST_ATTEMPTS)
    return False


def _refuse(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return _REFUSED
