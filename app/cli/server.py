"""Runs the service in a uvicorn server until a signal, and stops it without losing a request."""

import asyncio
import gc
import math
import resource
import select
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import NoReturn, cast

import structlog
import typer
import uvicorn

from app.cli.client.output import fail
from app.core.settings import Settings, warnings
from app.fastpath.connections import BoundedProtocol, ConnectionLimits
from app.fastpath.protocol import FastPathProtocol
from app.main import Service
from app.ratelimit.budget import polls_at_once
from app.rivya.schemes import SchemeInvalid

log = structlog.stdlib.get_logger(__name__)

_BACKLOG = 2048
_ACCEPT_INTERVAL, _MAX_ACCEPT_CHECKS = 0.002, 500
_DRAIN_INTERVAL, _MAX_DRAIN_CHECKS = 0.02, 50
STOP_SECONDS = 15
_MAX_CONNECTIONS, _MIN_CONNECTIONS = 4000, 16
_OTHER_DESCRIPTORS = 184
"""For the database, creates that are sent to Rivya, and files; polls and relayed calls come on top."""
_GC_THRESHOLD = 50_000


class AddressTaken(Exception):
    """Listening at the address is not possible; the text names the variables."""


def listen(host: str, port: int, *, variable: str = "RECEIVER_PORT") -> socket.socket:
    """A listening socket at `host` and `port` (0: any free port). Raises `AddressTaken`, which names `variable`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, the event loop recognises TCP and turns Nagle's algorithm off.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Before anything else starts: until one process listens, another can bind the same address.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        message = (
            f"RECEIVER_HOST, {variable}: got {host} and {port}; can't listen there "
            f"({error.strerror or type(error).__name__}): give an address of this machine and a free port"
        )
        raise AddressTaken(message) from error
    return listener


async def close_when_empty(listener: socket.socket) -> None:
    """Close `listener` when the connections in the kernel's queue have been accepted, after 1 second at most.

    Closing it earlier would reset them, although their clients are already connected.
    """
    listener.listen(0)  # the shortest queue: under load a longer one might never be empty
    for _ in range(_MAX_ACCEPT_CHECKS):
        if not select.select([listener], [], [], 0)[0]:
            break
        await asyncio.sleep(_ACCEPT_INTERVAL)
    listener.shutdown(socket.SHUT_RDWR)  # takes effect at once, while the event loop still holds the socket
    listener.close()


@contextmanager
def on_stop_signal(stop: Callable[[int], object]) -> Iterator[None]:
    """Within the block, call `stop` with the signal's number at each SIGINT or SIGTERM, in the running event loop."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _is_idle(connection: object) -> bool:
    cycle = getattr(connection, "cycle", None)  # uvicorn's state of the current request
    return bool(getattr(cycle, "response_complete", True))


class Server(uvicorn.Server):
    """A uvicorn server that answers long polls before it waits for their connections to close."""

    def __init__(self, config: uvicorn.Config, service: Service, limits: ConnectionLimits) -> None:
        super().__init__(config)
        self._service = service
        self._limits = limits
        self.gave_up: str | None = None
        """The reason given to `give_up`."""

    def give_up(self, reason: str) -> None:
        """Stop, because the service can never become ready."""
        self.gave_up = reason
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal. uvicorn's own method raises the signal again afterwards, which kills the process."""
        with on_stop_signal(lambda number: self.handle_exit(number, None)):
            yield

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second, and once a second close the connections of slow clients."""
        if counter % 10 == 0:
            self._limits.enforce(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, answer the requests that came or are on their way, then stop."""
        self._service.release_callers()
        self._service.app.is_draining = True
        for listener in sockets or ():
            await close_when_empty(listener)
        for server in self.servers:
            server.close()  # otherwise the event loop would try without a pause to accept on a closed socket
        await self._wait_idle_closed()
        await super().shutdown(sockets)

    async def _wait_idle_closed(self) -> None:
        """Wait until every open connection is answering a request, 1 second at most.

        The next request may already be on its way on an idle connection. If we closed it now, that request would get
        no response.
        """
        for _ in range(_MAX_DRAIN_CHECKS):
            await asyncio.sleep(_DRAIN_INTERVAL)  # the event loop registers sockets that it has just accepted
            if not any(_is_idle(connection) for connection in self.server_state.connections):
                return


class OperationsServer(uvicorn.Server):
    """A server for /livez, /readyz and /metrics on a port of their own, until the other one has stopped."""

    def __init__(self, service: Service) -> None:
        config = uvicorn.Config(
            service.operations_app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the other server."""
        yield

    @asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Serve during the block."""
        task = asyncio.create_task(self.serve(sockets=[listener]))
        try:
            yield
        finally:
            self.should_exit = True
            await task


def make_server(service: Service) -> Server:
    """A server for `service`, configured as in production."""
    most = max_connections(service.settings)
    limits = ConnectionLimits(most)
    service.access.most_waiting = max(most // 2, 1)  # else one token's streams would leave no connection for deliveries
    protocol = FastPathProtocol if service.settings.receiver_fast_path else BoundedProtocol
    config = uvicorn.Config(
        service.app,
        loop="uvloop",
        http=cast("type[asyncio.Protocol]", partial(protocol, limits=limits)),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(service.settings.receiver_keep_alive.total_seconds()),
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return Server(config, service, limits)


def max_connections(settings: Settings) -> int:
    """`RECEIVER_MAX_CONNECTIONS`; by default 4,000, or fewer if the process may not open as many files."""
    if settings.receiver_max_connections is not None:
        return settings.receiver_max_connections
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    polls = polls_at_once(settings.receiver_poll_rate)
    rest = descriptors - settings.receiver_rivya_concurrency - polls - _OTHER_DESCRIPTORS
    return max(_MIN_CONNECTIONS, min(_MAX_CONNECTIONS, rest))


async def serve_until_stopped(settings: Settings, *, may_share_file: bool = False) -> NoReturn:
    """Serve until a signal, and exit. `may_share_file`: also on a SQLite file that is in use.

    0: stopped by a signal, 1: could not start, 2: settings contradict each other or the stored data.
    """
    for line in warnings():
        log.warning("settings.doubtful", detail=line)
    metrics_port = settings.receiver_metrics_port
    try:
        listener = listen(settings.receiver_host, settings.receiver_port)
        metrics_listener = (
            None
            if metrics_port is None
            else listen(settings.receiver_host, metrics_port, variable="RECEIVER_METRICS_PORT")
        )
        service = Service(settings, may_share_file=may_share_file)
    except AddressTaken as error:
        fail(str(error), status=2)
    except SchemeInvalid as error:
        fail(f"RIVYA_SIGNATURE_SCHEME: {error}", status=2)
    ports = [each.getsockname()[1] for each in (listener, metrics_listener) if each is not None]
    log.info("start.listening", host=settings.receiver_host, **dict(zip(("port", "metrics_port"), ports, strict=False)))
    server = make_server(service)
    service.give_up = server.give_up
    _tune_gc()
    async with AsyncExitStack() as stack:
        if metrics_listener is not None:
            await stack.enter_async_context(OperationsServer(service).serving(metrics_listener))
        await server.serve(sockets=[listener])
    if server.gave_up is not None:
        fail(server.gave_up, status=2)
    raise typer.Exit(0 if server.started else 1)


def _tune_gc() -> None:
    """Collect rarely, and never look at the objects made so far.

    By default Python collects after every 700 new objects, which is every few deliveries: a sixth of the processor time
    under load. The objects of requests have no reference cycles, and their number is bounded.
    """
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    gc.enable()
