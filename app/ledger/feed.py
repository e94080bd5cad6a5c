"""The event feed: every transition once, in one order that never changes, read page by page with an opaque cursor."""

import asyncio
import base64
import hashlib
import hmac
import struct
import zlib
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from sqlalchemy import RowMapping, Select, TextClause, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.core.drivers import RawPostgres
from app.core.errors import RequestInvalid
from app.core.pagination import IN_ORDER
from app.core.records import dump_json
from app.core.waiters import Waiters, until_set
from app.ledger import rows
from app.ledger.feed_hints import FeedHints
from app.ledger.models import EventFilter, Generation, Transition, is_visible
from app.ledger.postgres import FEED_END
from app.ledger.recorder import Changes
from app.ledger.serializers import render_event
from app.ledger.sql import visible_to
from app.ledger.tables import feed, generations, transitions

LATEST: Final = "latest"
MOST_EVENTS: Final = 1000
"""Of one page."""
_SCANNED: Final = MOST_EVENTS + 1
"""Rows that are read for one page with a filter; it may match none of them."""
_END_OF_TIME: Final = (1 << 63) - 1
_READS_AT_ONCE: Final = 2
"""When a thousand streams connect again, their reads wait here, and not for a connection, which others need too."""

_WIRE: Final = struct.Struct(">QIQ")
_MAC_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class FeedCursor:
    """A place in the feed: after the transition at `position`."""

    position: int = 0
    check: int = 0
    """Tells whether the row at `position` is the one that was read; 0: not known."""
    removed_through: int = _END_OF_TIME
    """The reader knows that up to this position rows may be missing. At the beginning nothing is missing."""


@dataclass(frozen=True)
class Event:
    """A transition in the feed, with its generation as it was when the feed was read, or later."""

    cursor: FeedCursor
    """The place after it."""
    id: str
    """Its text."""
    transition: Transition
    generation: Generation

    @cached_property
    def document(self) -> dict[str, Any]:
        """The event as a JSON object."""
        return render_event(self.id, self.transition, self.generation)

    @cached_property
    def message(self) -> bytes:
        """The event as one server-sent event."""
        name = f"generation.{self.transition.to_status}"
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (self.id.encode(), name.encode(), dump_json(self.document))

    def matches(self, chosen: EventFilter) -> bool:
        """Whether the filter lets it through."""
        actual = (
            (chosen.status, self.transition.to_status),
            (chosen.generation_id, self.generation.id),
            (chosen.model, self.generation.model),
            (chosen.submitted_by, self.generation.submitted_by),
            (chosen.client_request_id, self.generation.client_request_id),
        )
        return is_visible(self.generation, chosen.owner) and all(
            wanted is None or wanted == value for wanted, value in actual
        )


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A part of the feed, oldest first."""

    events: Sequence[Event]
    next: FeedCursor
    """The place to go on from, also at the end."""
    has_more: bool = False
    """There may be more already."""
    gap: bool = False
    """Something between the cursor and these events was removed for its age, by an operator, or by a restore."""


class Feed:
    """Reads the feed. Every method raises `DatabaseUnavailable` where the database can't be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._next_latest: asyncio.Task[FeedCursor] | None = None
        self._key = b""

    async def cursor(self, after: str | None) -> FeedCursor:
        """The place that `after` names: the oldest transition for None, the end for `latest`, else a cursor of ours.

        Raises `RequestInvalid` for anything else.
        """
        if not self._key:
            async with self._reads, self._database.read() as connection:
                self._key = bytes.fromhex((await connection.execute(select(feed.c.cursor_key))).scalar_one())
        if after is None:
            return FeedCursor()
        return await self.latest() if after == LATEST else self._decode(after)

    def encode(self, cursor: FeedCursor) -> str:
        """The text of a cursor; of the same place it is always the same, unless rows behind it were removed."""
        known = cursor.removed_through if cursor.removed_through > cursor.position else 0
        place = _WIRE.pack(cursor.position, cursor.check, known)
        place = place if known else place[:-8]
        mac = hashlib.blake2b(place, key=self._key, digest_size=_MAC_BYTES).digest()
        return base64.urlsafe_b64encode(place + mac).decode().rstrip("=")

    def _decode(self, text: str) -> FeedCursor:
        try:
            signed = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            cursor = FeedCursor(*_WIRE.unpack(signed[:-_MAC_BYTES].ljust(_WIRE.size, b"\0")))
            is_ours = hmac.compare_digest(self.encode(cursor), text)
        except (ValueError, struct.error):
            is_ours = False
        if not is_ours:
            raise RequestInvalid("after: must be `latest`, a next_cursor or the id of an event, unchanged.")
        return cursor

    async def latest(self) -> FeedCursor:
        """The place after the newest transition; callers that come before a read begins share it."""
        if self._next_latest is None:
            self._next_latest = asyncio.create_task(self._read_latest(), name="feed-latest")
        return await asyncio.shield(self._next_latest)

    async def _read_latest(self) -> FeedCursor:
        t = transitions.c
        newest = select(t.feed_position, t.generation_id, t.number).order_by(t.feed_position.desc()).limit(1)
        async with self._reads:
            self._next_latest = None
            async with self._snapshot() as (connection, end):
                row = (await connection.execute(newest.where(t.feed_position < end))).mappings().first()
                removed = (await connection.execute(select(feed.c.removed_through))).scalar_one()
        return FeedCursor(0, 0, removed) if row is None else FeedCursor(row["feed_position"], _check(row), removed)

    async def read(self, chosen: EventFilter, *, after: FeedCursor, limit: int) -> FeedPage:
        """At most `limit` (1 to `MOST_EVENTS`) events after this place; with a filter the page may be empty.

        A restored database may lack what a reader has read already: it goes on at the end, with a gap.
        """
        async with self._reads, self._snapshot(plan=IN_ORDER) as (connection, end):
            window = _window(chosen, after=after.position, end=end, limit=limit)
            stored = (await connection.execute(_events(window, chosen, limit=limit + 1))).mappings().all()
            is_whole, last = len(stored) <= limit, after.position
            if is_whole and chosen.generation_id is None and chosen != EventFilter():
                in_window = window.subquery()
                counted = select(func.count(), func.coalesce(func.max(in_window.c.feed_position), last))
                count, last = (await connection.execute(counted)).one()
                is_whole = count < _SCANNED
            # Read last: rows that were removed until now are missing above.
            removed, newest, known_check = await self._state(connection, after.position)
        if max(newest, removed) < after.position:
            return FeedPage([], await self.latest(), gap=True)
        if after.check and known_check and after.check != known_check:
            page = await self.read(chosen, after=FeedCursor(after.position - 1), limit=limit)
            return replace(page, gap=True)
        events = [self._event(row) for row in stored[:limit]]
        following = replace(after, removed_through=removed)
        if events and (events[-1].cursor.position >= last or len(stored) > limit):
            following = replace(events[-1].cursor, removed_through=removed)
        elif last > after.position:
            following = FeedCursor(last, 0, removed)
        gap = removed > max(after.position, after.removed_through)
        return FeedPage(events, following, has_more=not is_whole, gap=gap)

    def _event(self, row: RowMapping) -> Event:
        cursor = FeedCursor(row["feed_position"], _check(row), 0)
        return Event(cursor, self.encode(cursor), rows.to_transition(row), rows.to_generation(row))

    @asynccontextmanager
    async def _snapshot(self, *, plan: TextClause | None = None) -> AsyncIterator[tuple[AsyncConnection, int]]:
        """A read transaction, and the position below which no row can be added that it does not show."""
        direct = self._database.direct
        end = (await direct.fetch(FEED_END))[0]["position"] if isinstance(direct, RawPostgres) else _END_OF_TIME
        async with self._database.read(plan=plan) as connection:
            yield connection, end

    async def _state(self, connection: AsyncConnection, position: int) -> tuple[int, int, int]:
        """How far rows were removed, the newest position, and the check of the row at `position`, 0 without one."""
        t = transitions.c
        newest = select(func.coalesce(func.max(t.feed_position), 0)).scalar_subquery().label("newest")
        joined = feed.outerjoin(transitions, t.feed_position == position)
        # By its key: where scans are disabled, a plan with one is so expensive that PostgreSQL compiles it first.
        named = feed.c.name == "events"
        statement = select(feed.c.removed_through, newest, t.generation_id, t.number).select_from(joined).where(named)
        row = (await connection.execute(statement)).mappings().one()
        return row["removed_through"], row["newest"], 0 if row["number"] is None else _check(row)


def _check(row: RowMapping) -> int:
    return zlib.crc32(f"{row['generation_id']}/{row['number']}".encode()) or 1


def _window(chosen: EventFilter, *, after: int, end: int, limit: int) -> Select[Any]:
    """The rows of which a page is made: those of one generation, or the next ones in the feed."""
    t = transitions.c
    if chosen.generation_id is not None:
        position = t.feed_position + 0  # so that, with the order by number, the index by generation is used
        return select(transitions).where(t.generation_id == chosen.generation_id, position > after, position < end)
    window = select(transitions).where(t.feed_position > after, t.feed_position < end)
    most = limit + 1 if chosen == EventFilter() else _SCANNED
    return window.order_by(t.feed_position).limit(most)


def _events(window: Select[Any], chosen: EventFilter, *, limit: int) -> Select[Any]:
    # The window is read first, whatever a planner expects of the other tables.
    page, g = window.subquery("page"), generations.c
    wanted = (
        (page.c.to_status, chosen.status),
        (g.model, chosen.model),
        (g.submitted_by, chosen.submitted_by),
        (g.client_request_id, chosen.client_request_id),
    )
    return (
        rows.SELECT_GENERATIONS.add_columns(*page.c)
        .join(page, page.c.generation_id == g.id)
        .where(
            *(column == value for column, value in wanted if value is not None), *visible_to(chosen.owner, generations)
        )
        .order_by(page.c.feed_position if chosen.generation_id is None else page.c.number)
        .limit(limit)
    )


# Following the feed: what is new is read once for all who follow it in this process.


_EVERYTHING: Final = ""
"""Followers of all generations wait for this id."""
_SECONDS_BETWEEN_READS: Final = 0.5
"""For the commits of other replicas."""
_SECONDS_BETWEEN_READS_WITH_HINTS: Final = 1.0
"""A hint may be missed, and a commit that held up others may fail without one."""
_SECONDS_BETWEEN_COMMITS: Final = 0.02
"""Commits of this process within this time are read together."""
_RECENT_EVENTS: Final = 2 * MOST_EVENTS
_RECENT_BYTES: Final = 16 * 1024 * 1024


class FeedTail:
    """Follows the end of the feed: one read for each commit that concerns a follower, however many there are.

    Holds the newest events in memory while somebody follows; a follower that is further behind reads pages of its own.
    """

    def __init__(self, feed: Feed, changes: Changes, hints: FeedHints | None = None) -> None:
        self.feed = feed
        self._hints = hints
        self._followers = Waiters()
        """By the generation that they follow."""
        self._recent: list[Event] | None = None
        """The events from `_begin` to `_end`, or None while nobody follows."""
        self._begin, self._end = FeedCursor(), FeedCursor()
        self._size = 0
        """Bytes of `_recent`."""
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._changes = changes
        if hints is not None:
            hints.is_followed = lambda: bool(self._followers.waited_for)
            hints.on_hint = self._woken.set

    async def pages(
        self, chosen: EventFilter, after: FeedCursor, *, limit: int, seconds: float
    ) -> AsyncGenerator[FeedPage, None]:
        """Pages of the feed, as soon as there is an event or a gap; after `seconds` without one, an empty page.

        Ends when the process stops. Raises `DatabaseUnavailable`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        with self._followers.wait(chosen.generation_id or _EVERYTHING) as changed:
            self._changes.listeners.add(self._on_transition)
            while not self._is_stopping:
                changed.clear()
                page = self._recent_page(chosen, after, limit=limit)
                if page is None:
                    page = await self.feed.read(chosen, after=after, limit=limit)
                after = page.next
                if not page.events and not page.gap and not page.has_more:
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(deadline):
                            await changed.wait()
                if page.events or page.gap or loop.time() >= deadline:
                    yield page
                    deadline = loop.time() + seconds

    async def run_once(self) -> float:
        """Read what is new if somebody follows; returns the seconds until the next run.

        Raises `DatabaseUnavailable`.
        """
        has_hints = self._hints is not None and self._hints.is_listening
        await until_set(self._woken, _SECONDS_BETWEEN_READS_WITH_HINTS if has_hints else _SECONDS_BETWEEN_READS)
        self._woken.clear()
        if not self._followers.waited_for:
            self._recent = None
            self._changes.listeners.discard(self._on_transition)
        elif self._recent is None:
            self._begin = self._end = await self.feed.latest()
            self._recent, self._size = [], 0
            self._followers.wake_all()  # for what was committed before
        else:
            await self._advance(self._recent)
        return _SECONDS_BETWEEN_COMMITS

    def stop(self) -> None:
        """End all streams and waits."""
        self._is_stopping = True
        self._followers.wake_all()

    def _on_transition(self, transition: Transition) -> None:
        if self._followers.is_waited_for(_EVERYTHING) or self._followers.is_waited_for(transition.generation_id):
            self._woken.set()

    async def _advance(self, recent: list[Event]) -> None:
        page = await self.feed.read(EventFilter(), after=self._end, limit=MOST_EVENTS)
        if page.gap:  # each follower has to get to know
            self._recent = None
            self._woken.set()
            return
        recent += page.events
        self._size += sum(len(event.message) for event in page.events)
        while len(recent) > _RECENT_EVENTS or (self._size > _RECENT_BYTES and recent):
            self._begin = recent[0].cursor
            self._size -= len(recent.pop(0).message)
        self._end = page.next
        for generation_id in {event.generation.id for event in page.events}:
            self._followers.wake(generation_id)
        if page.events:
            self._followers.wake(_EVERYTHING)
        if page.has_more:
            self._woken.set()

    def _recent_page(self, chosen: EventFilter, after: FeedCursor, *, limit: int) -> FeedPage | None:
        """The page after this place from memory; None if it begins before.

        An empty one until `run_once` has begun to follow, which wakes all followers.
        """
        if self._recent is None:
            self._woken.set()
            return FeedPage([], after)
        if after.position < self._begin.position:
            return None
        first = bisect_right(self._recent, after.position, key=lambda event: event.cursor.position)
        events = [event for event in self._recent[first:] if event.matches(chosen)]
        if len(events) > limit:
            following = replace(events[limit - 1].cursor, removed_through=self._end.removed_through)
            return FeedPage(events[:limit], following, has_more=True)
        return FeedPage(events, self._end if self._end.position > after.position else after)
