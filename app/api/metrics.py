"""/metrics for Prometheus: the process's counters, and gauges read from the database."""

import asyncio
import math
import platform
from datetime import datetime
from importlib import metadata

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Gauge,
    Info,
    disable_created_metrics,
    generate_latest,
)

from app.core.auth import Access
from app.core.clock import Clock
from app.core.middleware import CALLERS
from app.ledger.models import LedgerStats
from app.ledger.queries import Queries

BUILD = Info("receiver_build", "The release that runs.")
_SECONDS = 2.0

log = structlog.stdlib.get_logger(__name__)


def router(queries: Queries, access: Access, *, clock: Clock) -> APIRouter:
    """The route for Prometheus."""
    routes = APIRouter(tags=["operations"])
    BUILD.info({"version": metadata.version("rivya-receiver"), "python": platform.python_version()})
    disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of series
    scrapes = _Scrapes(queries, clock)

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Never fails for want of the database: its gauges are NaN then, and `receiver_database_up` is 0.

        Calls by token name are shown to a token of the role admin.
        """
        text, by_token = await scrapes.get()
        body = text + by_token if access.is_admin(request) else text
        return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes


class _Scrapes:
    """Renders the metrics, once for all who ask while they are rendered for others: it costs milliseconds."""

    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._clock = clock
        self._lock = asyncio.Lock()
        self._warns_at = 0.0
        self._next: asyncio.Task[tuple[bytes, bytes]] | None = None

    async def get(self) -> tuple[bytes, bytes]:
        """The metrics as text, none older than the call: those for everybody, and those that name tokens."""
        if self._next is None:
            self._next = asyncio.create_task(self._render())
        return await asyncio.shield(self._next)

    async def _render(self) -> tuple[bytes, bytes]:
        async with self._lock:
            self._next = None  # whoever asks from here on waits for the next text
            gauges = _render_gauges(await self._stats(), self._clock.now())
            return generate_latest(REGISTRY) + gauges, generate_latest(CALLERS)

    async def _stats(self) -> LedgerStats | None:
        try:
            async with asyncio.timeout(_SECONDS):
                return await self._queries.describe_status(self._clock.now())
        except Exception as error:  # noqa: BLE001 - the other metrics are served without the database
            if self._clock.monotonic() >= self._warns_at:  # strangers may ask many times a second
                self._warns_at = self._clock.monotonic() + 1
                log.warning("metrics.standing_unknown", error=type(error).__name__)
            return None


def _render_gauges(stats: LedgerStats | None, now: datetime) -> bytes:
    """The gauges that are read from the database at each scrape; `stats` is None if it does not answer."""
    registry = CollectorRegistry()

    def add_gauge(name: str, documentation: str, value: float) -> None:
        Gauge(f"receiver_{name}", documentation, registry=registry).set(value)

    open_, overdue, last = math.nan, math.nan, None
    if stats is not None:
        open_, overdue, last = stats.open, stats.overdue, stats.last_verified_at
    age = math.nan if last is None else (now - last).total_seconds()
    add_gauge("database_up", "1 while the database answers.", stats is not None)
    add_gauge("generations_open", "Generations whose outcome isn't known, 5,000 at most.", open_)
    add_gauge("generations_overdue", "Watched generations whose next poll is late, 1,001 at most.", overdue)
    words = "Time since the newest verified delivery; NaN before the first."
    add_gauge("last_verified_delivery_age_seconds", words, age)
    return generate_latest(registry)
