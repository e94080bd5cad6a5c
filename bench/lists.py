"""Every list with its filters, alone and together: how long one page takes, wherever it begins."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from typing import Any

from app.core.audit import Audit, AuditFilter
from app.core.clock import SystemClock
from app.core.database import Database
from app.ledger.feed import Feed, FeedCursor
from app.ledger.models import DeliveryFilter, EventFilter, GenerationFilter, Outcome, Position, Status, Tracking
from app.ledger.queries import Queries
from app.notifications.models import NotificationState
from app.notifications.repository import NotificationFilter, NotificationRepository
from bench.fill import PAST_MODEL
from bench.results import Results
from bench.world import on_database

MOST_MILLISECONDS = 20.0
MOST_FOR_USAGE = 250.0
"""Sums of 30 days, each hour of which had calls of 9 tokens with 20 models: no page, but 129,600 rows to add up."""
MOST_TOGETHER = 3
"""Filters of one page."""
TIMES = 3
TIMES_AGAIN = 15
"""Of what seemed to take too long: somebody else may have had the processor."""
_LIMIT = 50

Filters = Mapping[str, object]
Page = Callable[[], Awaitable[Any]]


def measure(url: str, results: Results) -> None:
    """The lists of a database that `bench.fill` has filled."""
    asyncio.run(_measure(url, results))


async def _measure(url: str, results: Results) -> None:
    database = Database(url)
    try:
        for name, pages in (
            ("generations", await _generations(database)),
            ("deliveries", await _deliveries(database)),
            ("events", await _events(database)),
            ("notifications", await _notifications(database)),
            ("the audit", await _audit(database)),
        ):
            await _judge(name, pages, results)
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        usage = await _milliseconds(
            lambda: Queries(database).usage(now - timedelta(days=30), now, most=10_001), times=TIMES_AGAIN
        )
        results.add(
            "usage of 30 days, of 9 tokens with 20 models in every hour",
            target=f"≤ {MOST_FOR_USAGE:.0f} ms",
            measured=f"{usage:.0f} ms",
            is_reached=usage <= MOST_FOR_USAGE,
        )
    finally:
        await database.dispose()


async def _judge(name: str, pages: Mapping[str, Page], results: Results) -> None:
    times = {what: await _milliseconds(page, times=TIMES) for what, page in pages.items()}
    for what, milliseconds in times.items():
        if milliseconds > MOST_MILLISECONDS:
            times[what] = await _milliseconds(pages[what], times=TIMES_AGAIN)
    slowest = max(times, key=lambda what: times[what])
    results.add(
        f"a page of {name}: each filter, two and three of them, at the beginning, in the middle and near the end",
        target=f"≤ {MOST_MILLISECONDS:.0f} ms each",
        measured=f"{len(times):,} pages, {statistics.median(times.values()):.1f} ms in the middle, "
        f"at most {times[slowest]:.1f} ms",
        is_reached=times[slowest] <= MOST_MILLISECONDS,
    )
    results.note(f"the slowest page of {name}: {slowest or 'without a filter'}")


async def _milliseconds(page: Page, *, times: int) -> float:
    """The median of so many, after one that does not count."""
    await page()
    measured = []
    for _ in range(times):
        started = time.perf_counter()
        await page()
        measured.append((time.perf_counter() - started) * 1000)
    return statistics.median(measured)


def _chosen(options: Mapping[str, Sequence[object]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """No filter, each one and each two with all their values, and each three with their first; in words, too."""
    for count in range(MOST_TOGETHER + 1):
        for names in combinations(options, count):
            for values in product(*(options[name][: 1 if count == 3 else None] for name in names)):
                chosen = dict(zip(names, values, strict=True))
                yield ", ".join(f"{name} {value}" for name, value in chosen.items()), chosen


async def _times(database: Database, column: str, table: str) -> tuple[datetime, datetime]:
    """The middle, and a time shortly after the oldest."""
    oldest, newest = await on_database(database, f"SELECT min({column}), max({column}) FROM {table}")  # noqa: S608
    return oldest + (newest - oldest) / 2, oldest + (newest - oldest) / 200


async def _generations(database: Database) -> dict[str, Page]:
    queries, (middle, early) = Queries(database), await _times(database, "first_seen_at", "generations")
    options: dict[str, Sequence[object]] = {
        "status": (Status.QUEUED, Status.SUCCEEDED, Status.FAILED),
        "tracking": (Tracking.WATCHING, Tracking.SETTLED, Tracking.LOST),
        "model": ("model-7", PAST_MODEL, "unheard-of"),
        "client_request_id": ("order-77",),
        "submitted_by": ("token-7", "nobody"),
        "owner": ("token-7", "nobody"),
        "created_after": (middle,),
        "created_before": (early,),
    }
    return {
        f"{what}; {begins}": _page(queries.generations, GenerationFilter(**filters), after=after, limit=_LIMIT)
        for what, filters in _chosen(options)
        for begins, after in _beginnings(middle, early)
    }


async def _deliveries(database: Database) -> dict[str, Page]:
    queries, (middle, early) = Queries(database), await _times(database, "received_at", "deliveries")
    options: dict[str, Sequence[object]] = {
        "generation_id": ("task_77", "unheard-of"),
        "outcome": (Outcome.APPLIED, Outcome.CONFLICT, Outcome.TEST),
        "event_type": ("generation.succeeded", "generation.failed", "generation.archived"),
        "owner": ("token-7", "nobody"),
        "received_after": (middle,),
        "received_before": (early,),
    }
    return {
        f"{what}; {begins}": _page(queries.deliveries, DeliveryFilter(**filters), after=after, limit=_LIMIT)
        for what, filters in _chosen(options)
        for begins, after in _beginnings(middle, early)
    }


def _beginnings(middle: datetime, early: datetime) -> tuple[tuple[str, Position | None], ...]:
    return ("first page", None), ("in the middle", Position(middle, "x")), ("near the end", Position(early, "x"))


async def _events(database: Database) -> dict[str, Page]:
    feed = Feed(database)
    (newest,) = await on_database(database, "SELECT max(feed_position) FROM transitions")
    options: dict[str, Sequence[object]] = {
        "status": (Status.SUCCEEDED, Status.PROCESSING),
        "generation_id": ("task_77", "unheard-of"),
        "model": ("model-7", PAST_MODEL),
        "submitted_by": ("token-7", "nobody"),
        "client_request_id": ("order-77",),
        "owner": ("token-7", "nobody"),
    }
    return {
        f"{what}; after {after:,}": _page(feed.read, EventFilter(**filters), after=FeedCursor(after), limit=200)
        for what, filters in _chosen(options)
        for after in (0, newest // 2, newest - 500)
    }


async def _notifications(database: Database) -> dict[str, Page]:
    repository = NotificationRepository(database)
    half = "(SELECT count(*) / 2 FROM notifications)"
    (middle,) = await on_database(database, f"SELECT id FROM notifications ORDER BY id OFFSET {half} LIMIT 1")  # noqa: S608
    options: dict[str, Sequence[object]] = {
        "token": ("token-7", "nobody"),
        "endpoint_id": ("wh_7", "unheard-of"),
        "state": tuple(NotificationState),
        "generation_id": ("task_77", "unheard-of"),
    }
    return {
        f"{what}; {begins}": _page(
            repository.list_notifications, NotificationFilter(**filters), after=after, limit=_LIMIT
        )
        for what, filters in _chosen(options)
        for begins, after in (("first page", None), ("in the middle", middle))
    }


async def _audit(database: Database) -> dict[str, Page]:
    entries, (middle, early) = (
        Audit(database, clock=SystemClock()),
        await _times(database, "recorded_at", "audit"),
    )
    options: dict[str, Sequence[object]] = {
        "actor": ("token-7", "nobody"),
        "action": ("token.created", "unheard-of"),
        "target": ("shop", "unheard-of"),
        "recorded_after": (middle,),
        "recorded_before": (early,),
    }
    return {
        what: _page(entries.list, AuditFilter(**filters), after=None, limit=_LIMIT)
        for what, filters in _chosen(options)
    }


def _page(read: Callable[..., Awaitable[Any]], chosen: object, **where: object) -> Page:
    return lambda: read(chosen, **where)
