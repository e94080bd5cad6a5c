"""Counts what was recorded: metrics and log events, and for charts the counts of each minute."""

import logging
from bisect import bisect_left
from collections import Counter as Count
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy import Text, delete, func, select

from app.core.database import Database
from app.core.pagination import BY_INDEX
from app.ledger.decide import Recorded
from app.ledger.models import Report, Source, Status, Transition
from app.ledger.tables import activity_minutes

RECORDED_DELIVERIES = Counter("receiver_deliveries", "Verified deliveries, by outcome.", ["outcome"])
TRANSITIONS = Counter("receiver_transitions", "Accepted status changes.", ["from_status", "to_status", "source"])
CALLBACKS_MISSED = Counter("receiver_callbacks_missed", "Outcomes that a poll found before any callback came.")
BATCH_SIZE = Histogram(
    "receiver_batch_size", "Reports recorded by one commit.", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)
COMMIT_SECONDS = Histogram(
    "receiver_commit_seconds",
    "Time to record one batch, commit included.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

log = structlog.stdlib.get_logger(__name__)


def log_recorded(reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
    """Count what was committed, in one log line; a line for each missed callback, and at debug for everything."""
    outcomes, steps = Count[str](), Count[tuple[str, str, str]]()
    for report, item in zip(reports, recorded, strict=True):
        if report.delivery is not None:
            outcomes["duplicate" if item.is_duplicate else item.outcome.value] += 1
        if (moved := item.transition) is not None:
            steps[moved.from_status or "none", moved.to_status, moved.source] += 1
    for outcome, count in outcomes.items():
        RECORDED_DELIVERIES.labels(outcome).inc(count)
    for step, count in steps.items():
        TRANSITIONS.labels(*step).inc(count)
    if reports:
        settled = sum(count for (_, status, _), count in steps.items() if Status(status).is_terminal)
        log.info("batch.recorded", reports=len(reports), transitions=steps.total(), settled=settled, **outcomes)
    _log_missed(recorded)
    if logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
        _log_each(reports, recorded)


def _log_missed(recorded: Sequence[Recorded]) -> None:
    for item in recorded:
        if item.missed_callback and item.transition is not None:
            CALLBACKS_MISSED.inc()
            log.info(
                "callback.missed", generation_id=item.transition.generation_id, status=item.transition.to_status.value
            )


def _log_each(reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
    for report, item in zip(reports, recorded, strict=True):
        if report.delivery is not None:
            outcome = "duplicate" if item.is_duplicate else item.outcome.value
            log.debug(
                "delivery.recorded", event_id=report.event_id, generation_id=report.generation_id, outcome=outcome
            )
        if (transition := item.transition) is not None:
            log.debug(
                "generation.settled" if transition.to_status.is_terminal else "generation.moved",
                generation_id=transition.generation_id,
                number=transition.number,
                from_status=transition.from_status,
                to_status=transition.to_status.value,
                source=transition.source.value,
            )


_SECONDS_BETWEEN_WRITES: Final = 5.0
_KEEP: Final = timedelta(days=31)
_COUNTS: Final = ("count", "within_1s", "within_10s", "within_1m", "within_10m")
_WITHIN: Final = (timedelta(seconds=1), timedelta(seconds=10), timedelta(minutes=1), timedelta(minutes=10))
SETTLED: Final = {source: f"settled by {source}" for source in Source}
DELIVERIES: Final = "deliveries"
REFUSALS: Final = "refusals"
POLLS: Final = "polls"
FAILED_POLLS: Final = "failed polls"
FAILED: Final = "failed"
_MINUTE: Final = timedelta(minutes=1)
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ActivitySum:
    """What was counted of one thing, in the part of the time that begins at `begins`."""

    begins: datetime
    what: str
    counts: tuple[int, ...]
    """How many, and how many of them were recorded within 1 s, 10 s, a minute and ten minutes."""


def minute_of(time: datetime) -> datetime:
    """The beginning of its minute."""
    return time.replace(second=0, microsecond=0)


def _time_of(part: str) -> datetime:
    """The time of which `part` is the beginning, such as `2026-05-10 12:3`."""
    return datetime.fromisoformat(part + "0000-01-01 00:00"[len(part) :]).replace(tzinfo=UTC)


class Activity:
    """`run_once` is one run of a supervised loop; what was counted since is lost if the process is killed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[tuple[datetime, str], list[int]] = defaultdict(lambda: [0] * len(_COUNTS))

    def add(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        """Count the deliveries and the outcomes of one commit."""
        minute = _BEGINNING
        for report, item in zip(reports, recorded, strict=True):
            if not minute <= report.reported_at < minute + _MINUTE:
                minute = minute_of(report.reported_at)
            if report.delivery is not None:
                self._counts[minute, DELIVERIES][0] += 1
            if report.source is Source.POLL:
                self._counts[minute, POLLS][0] += 1
            if item.transition is not None and item.transition.to_status.is_terminal:
                self._add_outcome(minute, item.transition)

    def _add_outcome(self, minute: datetime, transition: Transition) -> None:
        if transition.to_status is Status.FAILED:
            self._counts[minute, FAILED][0] += 1
        counts = self._counts[minute, SETTLED[transition.source]]
        counts[0] += 1
        if transition.occurred_at is not None:
            waited = transition.recorded_at - transition.occurred_at
            for number in range(bisect_left(_WITHIN, waited), len(_WITHIN)):
                counts[1 + number] += 1

    def count(self, what: str, at: datetime) -> None:
        """Count one of `REFUSALS` or `FAILED_POLLS`, which are not recorded in the ledger."""
        self._counts[minute_of(at), what][0] += 1

    async def sums(self, first: datetime, *, prefix: int) -> list[ActivitySum]:
        """The sums since `first`, for each part of the time of which the first `prefix` characters are the same.

        Raises `DatabaseUnavailable`.
        """
        a = activity_minutes.c
        text = a.minute.cast(Text) if self._database.is_sqlite else func.to_char(a.minute, "YYYY-MM-DD HH24:MI")
        part = func.substr(text, 1, prefix).label("part")
        summed = [func.sum(a[name]).label(name) for name in _COUNTS]
        statement = select(part, a.what, *summed).where(a.minute >= first).group_by(part, a.what)
        async with self._database.read_for_caller(plan=BY_INDEX) as connection:
            rows = (await connection.execute(statement)).all()
        return [
            ActivitySum(_time_of(row.part), row.what, tuple(int(row[2 + index]) for index in range(len(_COUNTS))))
            for row in rows
        ]

    async def run_once(self) -> float:
        """Write the counts; returns the seconds until the next run. Raises `DatabaseUnavailable`."""
        counts = dict(self._counts)
        self._counts.clear()
        try:
            await self._write(counts)
        except BaseException:
            for key, values in counts.items():
                self._counts[key] = [sum(each) for each in zip(self._counts[key], values, strict=True)]
            raise
        return _SECONDS_BETWEEN_WRITES

    async def _write(self, counts: dict[tuple[datetime, str], list[int]]) -> None:
        if not counts:
            return
        rows = [
            {"minute": minute, "what": what, **dict(zip(_COUNTS, values, strict=True))}
            for (minute, what), values in sorted(counts.items())  # two processes lock the rows in the same order
        ]
        new = self._database.insert(activity_minutes).values(rows)
        added = {name: activity_minutes.c[name] + new.excluded[name] for name in _COUNTS}
        async with self._database.transaction() as connection:
            await connection.execute(new.on_conflict_do_update(index_elements=["minute", "what"], set_=added))
            old = activity_minutes.c.minute < max(minute for minute, _ in counts) - _KEEP
            await connection.execute(delete(activity_minutes).where(old))
