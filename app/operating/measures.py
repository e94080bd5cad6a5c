"""What the watch shows and logs, under constant names."""

from collections.abc import Mapping

import structlog
from prometheus_client import Gauge

from app.operating.alarms import Alarm, Seen

VALUE = Gauge("receiver_alarm_value", "What the alarm looks at, as last measured; see its threshold.", ["alarm"])
THRESHOLD = Gauge("receiver_alarm_threshold", "Above this the alarm is raised: RECEIVER_ALARM_….", ["alarm"])
RAISED = Gauge("receiver_alarm", "1 while the alarm's value is above its threshold.", ["alarm"])
LEADER_ALIVE = Gauge("receiver_leader_alive", "1 while a replica looks after the registration.")
SETTLED = Gauge("receiver_settled_last_hour", "Outcomes of the last hour, the newest thousand or so.")
FOUND_BY_POLL = Gauge("receiver_callbacks_missed_last_hour", "Those of them that a poll had to find.")
LOOKED_AT = Gauge("receiver_watch_timestamp_seconds", "When the alarms were last measured, in Unix seconds.")

log = structlog.stdlib.get_logger(__name__)


def show(values: Mapping[Alarm, float], thresholds: Mapping[Alarm, float], *, raised: frozenset[Alarm]) -> None:
    """Set the gauges of every alarm."""
    for alarm, value in values.items():
        VALUE.labels(alarm).set(value)
        THRESHOLD.labels(alarm).set(thresholds[alarm])
        RAISED.labels(alarm).set(int(alarm in raised))


def show_seen(seen: Seen, *, at: float, has_leader: bool) -> None:
    """Set the gauges that belong to no alarm; `at` in Unix seconds."""
    LOOKED_AT.set(at)
    LEADER_ALIVE.set(int(has_leader))
    SETTLED.set(seen.settled)
    FOUND_BY_POLL.set(seen.found_by_poll)


def note_crossed(alarm: Alarm, *, value: float, threshold: float) -> None:
    """It is too much from now on."""
    log.warning("alarm.crossed", alarm=alarm.value, value=round(value, 3), threshold=threshold)


def note_cleared(alarm: Alarm, *, value: float, threshold: float) -> None:
    """It is well again."""
    log.info("alarm.cleared", alarm=alarm.value, value=round(value, 3), threshold=threshold)
