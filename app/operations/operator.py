"""The operator's half of a process, put together: what runs beside the requests and belongs to no part of the flow."""

import secrets
from collections.abc import Callable

from app.core.clock import Clock, SystemClock
from app.core.clock_sync import ClockSync
from app.core.database import Database
from app.core.leases import Leases
from app.core.settings import Settings
from app.operations.alarms import Alarm, AlarmQuery, AlarmWatch
from app.operations.retention import MOST, SHARE, SHARE_OF_ONE_WRITER, Pruning, Retention
from app.operations.usage_rollup import UsageSums


class Operator:
    """`loops` are to be run; `watch` has something to say at /readyz."""

    def __init__(self, settings: Settings, database: Database, *, clock: Clock, poll_errors: Callable[[], int]) -> None:
        registers = settings.registers_endpoint
        self.watch = AlarmWatch(
            AlarmQuery(database, by_hand=not registers),
            thresholds(settings),
            clock=clock,
            poll_errors=poll_errors,
            needs_leader=registers,
        )
        self.retention = Retention(
            Pruning(database),
            Leases(database, holder=secrets.token_hex(8)),
            clock=clock,
            days=settings.receiver_retention_days,
            share=SHARE_OF_ONE_WRITER if database.is_sqlite else SHARE,
            most=MOST,
        )
        timekeepers = (ClockSync(clock, database),) if isinstance(clock, SystemClock) else ()
        self.sums = UsageSums(database)
        self.loops = (self.watch, self.retention, self.sums, *timekeepers)


def thresholds(settings: Settings) -> dict[Alarm, float]:
    """Above these an alarm is raised, in the alarm's own unit."""
    return {
        Alarm.CALLBACKS_MISSED: settings.receiver_alarm_missed_ratio,
        Alarm.SILENCE: settings.receiver_alarm_silence.total_seconds(),
        Alarm.REFUSALS: settings.receiver_alarm_refusals,
        Alarm.OVERDUE: settings.receiver_alarm_overdue,
        Alarm.SUBMISSION: settings.receiver_alarm_submission_age.total_seconds(),
        Alarm.POLL_ERRORS: settings.receiver_alarm_poll_errors,
        Alarm.LEADER: settings.receiver_alarm_leader_gone.total_seconds(),
    }
