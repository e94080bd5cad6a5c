"""What the alarms measure, and when it is too much."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app.operations.alarms import FEWEST_SETTLED, Alarm, AlarmInputs, describe, exceeded, measure
from tests.support.clock import NOON

QUIET = AlarmInputs(
    settled=0,
    found_by_poll=0,
    watched_since=None,
    last_verified_at=None,
    refusals=0,
    overdue=0,
    unresolved_since=None,
    leader_until=None,
)
HOUR = timedelta(hours=1)


def value(alarm: Alarm, **changes: object) -> float:
    changed = replace(QUIET, **changes)  # type: ignore[arg-type]
    return measure(changed, NOON, poll_errors=3, leaderless=4.0)[alarm]


def test_every_alarm_has_a_value() -> None:
    assert measure(QUIET, NOON, poll_errors=0, leaderless=0.0) == dict.fromkeys(Alarm, 0.0)


def test_the_share_of_missed_callbacks_needs_some_outcomes() -> None:
    assert value(Alarm.CALLBACKS_MISSED, settled=FEWEST_SETTLED - 1, found_by_poll=FEWEST_SETTLED - 1) == 0
    assert value(Alarm.CALLBACKS_MISSED, settled=FEWEST_SETTLED, found_by_poll=FEWEST_SETTLED) == 1
    assert value(Alarm.CALLBACKS_MISSED, settled=8, found_by_poll=2) == 0.25


def test_the_lag_of_the_feed_is_the_age_of_what_it_holds_back() -> None:
    assert value(Alarm.FEED_LAG, feed_held_since=NOON - HOUR) == 3600


def test_silence_begins_with_the_oldest_open_generation_or_the_last_delivery_after_it() -> None:
    assert value(Alarm.SILENCE, last_verified_at=NOON - HOUR) == 0
    assert value(Alarm.SILENCE, watched_since=NOON - HOUR) == 3600
    assert value(Alarm.SILENCE, watched_since=NOON - HOUR, last_verified_at=NOON - 5 * HOUR) == 3600
    assert value(Alarm.SILENCE, watched_since=NOON - 5 * HOUR, last_verified_at=NOON - HOUR) == 3600


def test_what_a_clock_set_back_left_in_the_future_is_no_age() -> None:
    assert value(Alarm.SILENCE, watched_since=NOON + HOUR) == 0
    assert value(Alarm.SUBMISSION, unresolved_since=NOON + HOUR) == 0


def test_the_other_values_are_what_was_seen() -> None:
    assert value(Alarm.REFUSALS, refusals=7) == 7
    assert value(Alarm.OVERDUE, overdue=8) == 8
    assert value(Alarm.SUBMISSION, unresolved_since=NOON - HOUR) == 3600
    assert value(Alarm.POLL_ERRORS) == 3
    assert value(Alarm.LEADER) == 4


def test_a_leader_lives_as_long_as_its_lease() -> None:
    assert not QUIET.has_leader(NOON)
    assert replace(QUIET, leader_until=NOON + HOUR).has_leader(NOON)
    assert not replace(QUIET, leader_until=NOON).has_leader(NOON)


def test_an_alarm_is_raised_above_its_threshold_and_not_at_it() -> None:
    thresholds = dict.fromkeys(Alarm, 10.0)
    assert exceeded(dict.fromkeys(Alarm, 10.0), thresholds) == frozenset()
    assert exceeded({**dict.fromkeys(Alarm, 0.0), Alarm.SILENCE: 10.1}, thresholds) == {Alarm.SILENCE}


@pytest.mark.parametrize(
    ("alarm", "measured", "threshold", "begins"),
    [
        (Alarm.CALLBACKS_MISSED, 0.6, 0.5, "60% of the outcomes of the last hour were found by poll, 50% at most"),
        (Alarm.SILENCE, 1801.0, 1800.0, "1801 s without a verified delivery"),
        (Alarm.REFUSALS, 11.0, 10.0, "11 deliveries refused since the last verified one, 10 at most"),
    ],
)
def test_what_is_too_much_is_told_with_what_to_do(alarm: Alarm, measured: float, threshold: float, begins: str) -> None:
    [over] = describe({alarm: measured}, {alarm: threshold})
    assert (over.name, over.ok, over.is_required) == (alarm, False, False)
    assert over.detail.startswith(begins)
    assert "; " in over.detail
    [well] = describe({alarm: threshold}, {alarm: threshold})
    assert well.ok
    assert "; " not in well.detail
