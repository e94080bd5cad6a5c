"""The alarms: how they are measured, their thresholds, and how they appear in logs, metrics and /readyz."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import structlog
from prometheus_client import Gauge
from sqlalchemy import (
    CheckConstraint,
    Column,
    Executable,
    Integer,
    Select,
    Table,
    bindparam,
    case,
    func,
    literal_column,
    select,
    update,
)

from app.core.clock import Clock
from app.core.database import Database, Id, UtcDateTime, metadata
from app.core.errors import HealthCheck
from app.core.leases import leases
from app.core.pagination import BY_INDEX
from app.core.settings import Settings
from app.endpoint.models import LIVE
from app.endpoint.reconciler import LEASE as LEADER
from app.endpoint.repository import endpoints
from app.intake.rejections import MALFORMED, rejections
from app.ledger.models import Source, Tracking
from app.ledger.postgres import FEED_END
from app.ledger.queries import overdue
from app.ledger.sql import TERMINAL
from app.ledger.tables import deliveries, polls, transitions
from app.submission.store import submissions
from app.tokens.spending import largest_share

log = structlog.stdlib.get_logger(__name__)

FEWEST_SETTLED: Final = 5
"""With fewer outcomes than this a share means nothing."""


class Alarm(StrEnum):
    """Conditions that can be wrong while no request fails."""

    CALLBACKS_MISSED = "callbacks_missed"
    """Share, from 0 to 1, of the outcomes of the last hour that a poll had to find."""
    SILENCE = "silence"
    """Seconds without any verified delivery while a watched generation was open."""
    REFUSALS = "refusals"
    """Deliveries refused since the last verified one."""
    OVERDUE = "overdue"
    """Watched generations whose next poll should have begun; 1,001 may mean more."""
    SUBMISSION = "submission"
    """Seconds since the oldest create whose outcome is not known."""
    POLL_ERRORS = "poll_errors"
    """Polls of this process in a row that brought nothing."""
    TOKEN_LIMITS = "token_limits"  # noqa: S105 - no password
    """The largest share, from 0 to 1, that a token has used of a limit of its credits."""
    FEED_LAG = "feed_lag"
    """Seconds for which the oldest committed event has been held back in the feed, by a write that does not end."""
    LEADER = "leader"
    """Seconds for which no replica looked after our registration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmInputs:
    """The values of one query of the database."""

    settled: int
    """Outcomes of the last hour, the newest thousand at most."""
    found_by_poll: int
    """Those of them that a poll found."""
    watched_since: datetime | None
    """When the oldest watched generation was first heard of."""
    last_verified_at: datetime | None
    refusals: int
    overdue: int
    unresolved_since: datetime | None
    """When the oldest create of unknown outcome was stored."""
    leader_until: datetime | None
    """When the leader's lease ends."""
    feed_held_since: datetime | None = None
    """When the oldest event was recorded that the feed does not show yet."""
    token_limits: float | None = None
    """The largest share that a token has used of its credits of this day or month."""

    def has_leader(self, now: datetime) -> bool:
        """A replica looks after our registration."""
        return self.leader_until is not None and self.leader_until > now


def measure(measured: AlarmInputs, now: datetime, *, poll_errors: int, leaderless: float) -> dict[Alarm, float]:
    """The value of every alarm. `leaderless`: seconds since a replica last had the lease."""
    enough = measured.settled >= FEWEST_SETTLED
    return {
        Alarm.CALLBACKS_MISSED: measured.found_by_poll / measured.settled if enough else 0.0,
        Alarm.SILENCE: _silence(measured, now),
        Alarm.REFUSALS: float(measured.refusals),
        Alarm.OVERDUE: float(measured.overdue),
        Alarm.SUBMISSION: _seconds_since(measured.unresolved_since, now),
        Alarm.POLL_ERRORS: float(poll_errors),
        Alarm.TOKEN_LIMITS: measured.token_limits or 0.0,
        Alarm.FEED_LAG: _seconds_since(measured.feed_held_since, now),
        Alarm.LEADER: leaderless,
    }


def alarm_thresholds(settings: Settings) -> dict[Alarm, float]:
    """The value above which each alarm is raised, in the alarm's unit."""
    return {
        Alarm.CALLBACKS_MISSED: settings.receiver_alarm_missed_ratio,
        Alarm.SILENCE: settings.receiver_alarm_silence.total_seconds(),
        Alarm.REFUSALS: settings.receiver_alarm_refusals,
        Alarm.OVERDUE: settings.receiver_alarm_overdue,
        Alarm.SUBMISSION: settings.receiver_alarm_submission_age.total_seconds(),
        Alarm.POLL_ERRORS: settings.receiver_alarm_poll_errors,
        Alarm.TOKEN_LIMITS: settings.receiver_alarm_token_limits,
        Alarm.FEED_LAG: settings.receiver_alarm_feed_lag.total_seconds(),
        Alarm.LEADER: settings.receiver_alarm_leader_gone.total_seconds(),
    }


def exceeded(values: Mapping[Alarm, float], thresholds: Mapping[Alarm, float]) -> frozenset[Alarm]:
    """The alarms whose value is above their threshold."""
    return frozenset(alarm for alarm, value in values.items() if value > thresholds[alarm])


def _silence(measured: AlarmInputs, now: datetime) -> float:
    if measured.watched_since is None:
        return 0.0
    # Before the oldest open generation no delivery was expected, so silence is counted from there at the earliest.
    return _seconds_since(max(measured.watched_since, measured.last_verified_at or measured.watched_since), now)


def _seconds_since(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max((now - since).total_seconds(), 0.0)


_HOUR: Final = timedelta(hours=1)
_NEWEST: Final = 2000


class AlarmQuery:
    """Reads `AlarmInputs` in one statement that uses indexes only, so its time does not grow with the tables.

    `by_hand`: the endpoint was not registered by us, so no row of ours counts refusals."""

    def __init__(self, database: Database, *, by_hand: bool) -> None:
        self._database = database
        self._statement = _statement(by_hand=by_hand)
        if not database.is_sqlite:
            self._statement = self._statement.add_columns(_FEED_HELD_SINCE)

    async def at(self, now: datetime) -> AlarmInputs:
        """The measurements at `now`. Raises `DatabaseUnavailable`."""
        async with self._database.read(plan=BY_INDEX) as connection:
            parameters = {"now": now, "hour_ago": now - _HOUR, "day": f"{now:%Y-%m-%d}", "month": f"{now:%Y-%m}"}
            row = dict((await connection.execute(self._statement, parameters)).mappings().one())
        verified = [at for at in (row.pop("last_delivery_at"), row.pop("last_verified_at")) if at is not None]
        return AlarmInputs(**row, last_verified_at=max(verified, default=None))


# Only PostgreSQL has several writers, so that one may hold up what others have committed.
_FEED_HELD_SINCE: Final = literal_column(
    f"(SELECT recorded_at FROM transitions WHERE feed_position >= ({FEED_END}) ORDER BY feed_position LIMIT 1)",  # noqa: S608
    UtcDateTime,
).label("feed_held_since")


def _statement(*, by_hand: bool) -> Select[Any]:
    p, s, d, e, r, t = polls.c, submissions.c, deliveries.c, endpoints.c, rejections.c, transitions.c
    hour_ago = bindparam("hour_ago", type_=UtcDateTime)
    # The newest rows are read by the primary key, so no index by time is needed.
    newest = select(t.source, t.to_status, t.recorded_at).order_by(t.feed_position.desc()).limit(_NEWEST)
    n = newest.subquery("newest").c
    by_poll = func.coalesce(func.sum(case((n.source == Source.POLL, 1), else_=0)), 0)
    counts = select(func.count(n.source).label("settled"), by_poll.label("found_by_poll"))
    settled = counts.where(n.to_status.in_(TERMINAL), n.recorded_at >= hour_ago).subquery("settled_lately")
    last_delivery_at = select(func.max(d.received_at, type_=UtcDateTime))
    if by_hand:  # the stored sample is bounded, so the count is 1,000 at most
        since = func.coalesce(last_delivery_at.scalar_subquery(), hour_ago)
        refused = select(func.count(r.id)).where(r.rejected_at > since, r.reason.not_in(list(MALFORMED)))
    else:
        refused = select(func.coalesce(func.sum(e.refusals), 0)).where(e.state.in_(LIVE))
    parts: dict[str, Select[Any]] = {
        "watched_since": select(func.min(p.first_seen_at, type_=UtcDateTime)).where(p.state == Tracking.WATCHING),
        "last_delivery_at": last_delivery_at,
        "last_verified_at": select(func.max(e.last_verified_at, type_=UtcDateTime)),
        "refusals": refused,
        "unresolved_since": select(func.min(s.created_at, type_=UtcDateTime)).where(s.next_attempt_at.is_not(None)),
        "token_limits": largest_share(),
        "leader_until": select(leases.c.held_until).where(leases.c.name == LEADER),
    }
    labelled = (part.scalar_subquery().label(name) for name, part in parts.items())
    return select(settled.c.settled, settled.c.found_by_poll, overdue().label("overdue"), *labelled)


# The alarms that are raised, for all replicas together, so that each change is notified once.


alarm_states = Table(
    "alarm_states",
    metadata,
    Column("alarm", Id, primary_key=True),
    Column("is_raised", Integer, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False, comment="when a replica last found it raised"),
    CheckConstraint("is_raised IN (0, 1)", name="is_raised"),
)

_RAISED: Final = update(alarm_states).where(alarm_states.c.is_raised == 1)

_STALE: Final = timedelta(seconds=15)
"""For so long no replica finds an alarm raised before it counts as cleared: replicas measure every 5 s."""

Publish = Callable[..., Awaitable[int]]
"""`NotificationRepository.publish_alarm`: writes the event for each webhook that asks for it."""


class AlarmEvents:
    """Publishes an event when the first replica finds an alarm raised, and when the last one no longer does."""

    def __init__(self, database: Database, publish: Publish) -> None:
        self._database = database
        self._publish = publish

    async def update(self, values: Mapping[Alarm, float], thresholds: Mapping[Alarm, float], *, now: datetime) -> None:
        """Store and publish what has changed, from what this replica measured. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            rows = {row.alarm: row for row in await connection.execute(select(alarm_states))}
        for alarm, value in values.items():
            row, is_raised = rows.get(alarm), value > thresholds[alarm]
            was_raised = row is not None and bool(row.is_raised)
            if is_raised and was_raised:
                await self._execute(_RAISED.where(alarm_states.c.alarm == alarm).values(seen_at=now))
            elif is_raised or (row is not None and was_raised and now - row.seen_at > _STALE):
                # Published before it is stored: a process killed in between does it again, under the same id.
                event_id = _event_id(alarm, str(is_raised), str(None if row is None else row.changed_at))
                figures = {"value": value, "threshold": thresholds[alarm]}
                await self._publish(event_id=event_id, alarm=alarm, is_raised=is_raised, now=now, **figures)
                changed = {"is_raised": int(is_raised), "changed_at": now, "seen_at": now}
                statement = self._database.insert(alarm_states).values(alarm=alarm, **changed)
                await self._execute(statement.on_conflict_do_update(index_elements=["alarm"], set_=changed))

    async def _execute(self, statement: Executable) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(statement)


def _event_id(*parts: str) -> str:
    """The same for all replicas that see the same change."""
    return f"evt_{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:24]}"


_SECONDS_BETWEEN_RUNS: Final = 5.0

VALUE = Gauge("receiver_alarm_value", "What the alarm looks at, as last measured; see its threshold.", ["alarm"])
THRESHOLD = Gauge("receiver_alarm_threshold", "Above this the alarm is raised: RECEIVER_ALARM_….", ["alarm"])
RAISED = Gauge("receiver_alarm", "1 while the alarm's value is above its threshold.", ["alarm"])
LEADER_ALIVE = Gauge("receiver_leader_alive", "1 while a replica looks after the registration.")
SETTLED = Gauge("receiver_settled_last_hour", "Outcomes of the last hour, the newest thousand or so.")
FOUND_BY_POLL = Gauge("receiver_callbacks_missed_last_hour", "Those of them that a poll had to find.")
LOOKED_AT = Gauge("receiver_watch_timestamp_seconds", "When the alarms were last measured, in Unix seconds.")


class AlarmMonitor:
    """Measures the alarms every 5 s, sets the gauges, logs and notifies each change; every replica runs it."""

    def __init__(
        self,
        query: AlarmQuery,
        thresholds: Mapping[Alarm, float],
        *,
        clock: Clock,
        poll_errors: Callable[[], int],
        needs_leader: bool,
        events: AlarmEvents,
    ) -> None:
        self._query = query
        self._thresholds = thresholds
        self._clock = clock
        self._poll_errors = poll_errors
        self._needs_leader = needs_leader
        """False if we register no endpoint: then no leader is needed."""
        self._events = events
        self._leader_seen_at = clock.monotonic()
        self._values: dict[Alarm, float] = {}
        self._raised: frozenset[Alarm] = frozenset()

    async def run_once(self) -> float:
        """Measure, set gauges, log changes; returns the seconds until the next run. Raises `DatabaseUnavailable`."""
        now = self._clock.now()
        measured = await self._query.at(now)
        has_leader = not self._needs_leader or measured.has_leader(now)
        if has_leader:
            self._leader_seen_at = self._clock.monotonic()
        leaderless = self._clock.monotonic() - self._leader_seen_at
        self._values = measure(measured, now, poll_errors=self._poll_errors(), leaderless=leaderless)
        raised = exceeded(self._values, self._thresholds)
        LOOKED_AT.set(now.timestamp())
        LEADER_ALIVE.set(int(has_leader))
        SETTLED.set(measured.settled)
        FOUND_BY_POLL.set(measured.found_by_poll)
        for alarm, value in sorted(self._values.items()):
            self._show(alarm, value, self._thresholds[alarm], is_raised=alarm in raised)
        self._raised = raised
        await self._events.update(self._values, self._thresholds, now=now)
        return _SECONDS_BETWEEN_RUNS

    async def health_checks(self) -> list[HealthCheck]:
        """One check for each alarm from the last measurement; empty before the first."""
        return describe(self._values, self._thresholds)

    def _show(self, alarm: Alarm, value: float, threshold: float, *, is_raised: bool) -> None:
        VALUE.labels(alarm).set(value)
        THRESHOLD.labels(alarm).set(threshold)
        RAISED.labels(alarm).set(int(is_raised))
        if is_raised and alarm not in self._raised:
            log.warning("alarm.crossed", alarm=alarm.value, value=round(value, 3), threshold=threshold)
        if not is_raised and alarm in self._raised:
            log.info("alarm.cleared", alarm=alarm.value, value=round(value, 3), threshold=threshold)


_WORDS: Final = MappingProxyType(
    {
        Alarm.CALLBACKS_MISSED: (
            "of the outcomes of the last hour were found by poll",
            "callbacks do not come: see `deliveries` and `endpoint`, and whether Rivya reaches RECEIVER_PUBLIC_URL",
        ),
        Alarm.SILENCE: (
            "without a verified delivery while generations are open",
            "see `deliveries`, `refusals`, and whether Rivya reaches RECEIVER_PUBLIC_URL",
        ),
        Alarm.REFUSALS: (
            "deliveries refused since the last verified one",
            "the secret or scheme does not fit (see `deliveries`), or a lost endpoint delivers (`endpoint_orphans`)",
        ),
        Alarm.OVERDUE: (
            "generations wait for a poll that should have begun",
            "see `polling`; raise RECEIVER_POLL_RATE if Rivya allows it",
        ),
        Alarm.SUBMISSION: (
            "since the oldest create whose outcome is unknown",
            "it is retried under its own key; see `submission.unknown` in the log",
        ),
        Alarm.POLL_ERRORS: ("polls in a row brought nothing", "Rivya fails or is away: see `poll.failed` in the log"),
        Alarm.TOKEN_LIMITS: (
            "of its credits of this day or month is what one token has used",
            "its creates will be answered 402: see `rivya-receiver tokens list`, and /api/v1/tokens/me with that token",
        ),
        Alarm.FEED_LAG: (
            "for which the feed has held back an event that is committed",
            "a write of another process does not end: see pg_stat_activity and pg_locks (locktype advisory)",
        ),
        Alarm.LEADER: (
            "without a replica that looks after the registration",
            "see `loop.failed` and `endpoint.attempt_failed` in the log",
        ),
    }
)
_SECONDS: Final = frozenset({Alarm.SILENCE, Alarm.SUBMISSION, Alarm.FEED_LAG, Alarm.LEADER})


def describe(values: Mapping[Alarm, float], thresholds: Mapping[Alarm, float]) -> list[HealthCheck]:
    """One health check for each alarm; none is required, since the service still records deliveries."""
    checks = []
    for alarm, value in values.items():
        what, remedy = _WORDS[alarm]
        ok = value <= thresholds[alarm]
        detail = f"{_shown(alarm, value)} {what}, {_shown(alarm, thresholds[alarm])} at most"
        detail = detail if ok else f"{detail}; {remedy}"
        checks.append(HealthCheck(alarm.value, ok=ok, detail=detail, is_required=False, remedy=remedy))
    return checks


def _shown(alarm: Alarm, value: float) -> str:
    if alarm in (Alarm.CALLBACKS_MISSED, Alarm.TOKEN_LIMITS):
        return f"{value:.0%}"
    return f"{value:.0f} s" if alarm in _SECONDS else f"{value:.0f}"
