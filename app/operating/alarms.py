"""What is worth an operator's attention, how it is measured, and when it is too much; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

FEWEST_SETTLED: Final = 5
"""A share of fewer outcomes than these tells nothing."""


class Alarm(StrEnum):
    """What can be wrong without a single request failing."""

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
    LEADER = "leader"
    """Seconds for which no replica looked after our registration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look at the database showed."""

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
    """When the oldest create of unknown outcome was written down."""
    leader_until: datetime | None
    """When the leader's lease ends."""

    def has_leader(self, now: datetime) -> bool:
        """A replica looks after our registration."""
        return self.leader_until is not None and self.leader_until > now


def measure(seen: Seen, now: datetime, *, poll_errors: int, leaderless: float) -> dict[Alarm, float]:
    """The value of every alarm. `leaderless` is the number of seconds since a leader was last seen."""
    enough = seen.settled >= FEWEST_SETTLED
    return {
        Alarm.CALLBACKS_MISSED: seen.found_by_poll / seen.settled if enough else 0.0,
        Alarm.SILENCE: _silence(seen, now),
        Alarm.REFUSALS: float(seen.refusals),
        Alarm.OVERDUE: float(seen.overdue),
        Alarm.SUBMISSION: _seconds_since(seen.unresolved_since, now),
        Alarm.POLL_ERRORS: float(poll_errors),
        Alarm.LEADER: leaderless,
    }


def crossed(values: Mapping[Alarm, float], thresholds: Mapping[Alarm, float]) -> frozenset[Alarm]:
    """The alarms whose value is above their threshold."""
    return frozenset(alarm for alarm, value in values.items() if value > thresholds[alarm])


def _silence(seen: Seen, now: datetime) -> float:
    if seen.watched_since is None:
        return 0.0
    # A delivery from before the oldest open generation says nothing of the time in between: nothing was to come then.
    return _seconds_since(max(seen.watched_since, seen.last_verified_at or seen.watched_since), now)


def _seconds_since(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max((now - moment).total_seconds(), 0.0)
