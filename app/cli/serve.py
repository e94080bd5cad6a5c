"""Starts the service, serves until it is told to stop, and stops well."""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from app.cli.listening import AddressTaken, listen
from app.core.errors import DatabaseUnavailable
from app.core.sealing import SealBroken
from app.core.settings import Settings
from app.main import Service, SettingsContradict, create_service

log = structlog.stdlib.get_logger(__name__)

_DATABASE_PATIENCE = 60.0
_STOP_SECONDS = 15
_STARTED, _FAILED, _REFUSED = 0, 1, 2


class Server(uvicorn.Server):
    """A uvicorn that lets those who wait for a generation go before it waits for their connections to close."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop when told to, and leave it at that: uvicorn's own raises the signal again, and dies of it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

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
        service = create_service(settings)
    except (AddressTaken, SettingsContradict) as error:
        return _refuse(str(error))
    log.info("start.listening", host=settings.receiver_host, port=listener.getsockname()[1])
    try:
        if not await _prepare(service):
            return _FAILED
    except SealBroken as error:
        await service.close()
        return _refuse(f"RECEIVER_ENCRYPTION_KEYS: {error}")
    server = make_server(service)
    await server.serve(sockets=[listener])
    return _STARTED if server.started else _FAILED


async def _prepare(service: Service) -> bool:
    """Migrate and load secrets, waiting for a database that is still starting itself."""
    for attempt in range(1, int(_DATABASE_PATIENCE) + 1):
        try:
            await service.prepare()
        except DatabaseUnavailable as error:
            log.warning("start.database_unavailable", attempt=attempt, error=type(error.__cause__).__name__)
            await asyncio.sleep(1)
        else:
            return True
    log.error("start.gave_up", seconds=_DATABASE_PATIENCE)
    await service.close()
    return False


def _refuse(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return _REFUSED
