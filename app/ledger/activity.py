"""Counts of what was recorded, by the minute, for charts: collected in memory and added to `activity_minutes`."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import delete

from app.core.database import Database
from app.ledger.decide import Recorded
from app.ledger.models import Report, Source
from app.ledger.tables import activity_minutes

_SECONDS_BETWEEN_WRITES: Final = 5.0
_KEEP: Final = timedelta(days=31)
_COUNTS: Final = ("count", "within_1s", "within_10s", "within_1m", "within_10m")
_WITHIN: Final = (timedelta(seconds=1), timedelta(seconds=10), timedelta(minutes=1), timedelta(minutes=10))
_SETTLED: Final = {source: f"settled by {source}" for source in Source}
_MINUTE: Final = timedelta(minutes=1)
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
                minute = report.reported_at.replace(second=0, microsecond=0)
            if report.delivery is not None:
                self._counts[minute, "deliveries"][0] += 1
            transition = item.transition
            if transition is None or not transition.to_status.is_terminal:
                continue
            counts = self._counts[minute, _SETTLED[transition.source]]
            counts[0] += 1
            if transition.occurred_at is not None:
                waited = transition.recorded_at - transition.occurred_at
                for number in range(bisect_left(_WITHIN, waited), len(_WITHIN)):
                    counts[1 + number] += 1

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
