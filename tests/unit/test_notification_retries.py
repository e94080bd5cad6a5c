"""When an attempt is repeated, when an operator has to know, and which endpoint gets which generations."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from app.ledger.models import EventFilter
from app.notifications.models import (
    MOST_ATTEMPTS,
    EventType,
    Failing,
    NewNotification,
    NotificationState,
    Result,
    Subscription,
    SubscriptionStatus,
    failing_stage,
    logged,
    next_attempt,
)
from tests.support.clock import NOON

FAILED = Result(at=NOON, status=500)
HOUR = 3600


def subscription(**members: Any) -> Subscription:
    given = {"status": SubscriptionStatus.ACTIVE, "owner": None, "model": None, "submitted_by": None, **members}
    return Subscription(
        **given,
        id="whend_1",
        token="shop",
        name="",
        url="https://example.com",
        event_types=(EventType.FAILED,),
        secret="",
        secret_preview="",
        created_at=NOON,
        updated_at=NOON,
    )


def test_the_pauses_grow_to_a_day_and_end_after_ten_attempts() -> None:
    pauses = [seconds(attempts, FAILED) for attempts in range(1, 11)]
    hours = [hour * HOUR for hour in (2, 5, 10, 14, 20, 24)]
    assert pauses == [5, 300, 1800, *hours, None]
    assert MOST_ATTEMPTS == 10


def test_chance_makes_a_pause_longer_by_a_tenth_at_most() -> None:
    assert seconds(2, FAILED, spread=1.0) == 330
    assert seconds(2, FAILED, spread=0.5) == 315


@pytest.mark.parametrize(
    ("retry_after", "expected"), [(None, 5), (1.0, 5), (60.0, 60), (1e9, HOUR), (-5.0, 5), (0.0, 5)]
)
def test_the_receiver_may_ask_for_an_hour_at_most(retry_after: float | None, expected: int) -> None:
    assert seconds(1, Result(at=NOON, status=503, retry_after=retry_after)) == expected


def test_a_receiver_that_is_gone_is_not_asked_again() -> None:
    gone = Result(at=NOON, status=410)
    assert (gone.is_gone, next_attempt(1, gone, spread=0)) == (True, None)


def seconds(attempts: int, result: Result, *, spread: float = 0.0) -> float | None:
    at = next_attempt(attempts, result, spread=spread)
    return None if at is None else (at - NOON).total_seconds()


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (Result(at=NOON, status=200), None),
        (Result(at=NOON, status=299), None),
        (Result(at=NOON, status=302), "status 302"),
        (Result(at=NOON, status=199), "status 199"),
        (Result(at=NOON, error="timed_out"), "timed_out"),
    ],
)
def test_2xx_is_success_and_all_else_has_a_reason(result: Result, reason: str | None) -> None:
    assert (result.reason, result.is_success) == (reason, reason is None)


def test_the_newest_attempts_are_logged() -> None:
    log: list[Any] = []
    for number in range(40):
        log = logged(log, Result(at=NOON, status=number))
    assert [entry["status"] for entry in log] == list(range(10, 40))


@pytest.mark.parametrize(
    ("since", "last", "expected"),
    [
        (None, None, Failing.FIRST),
        (1, 1, None),
        (59, 58, None),
        (60, 59, Failing.HALF),
        (61, 60, None),
        (119, 118, None),
        (120, 119, Failing.DISABLED),
        (120, None, Failing.DISABLED),
        (70, None, Failing.HALF),
    ],
)
def test_an_operator_knows_of_the_first_failure_of_half_the_time_and_of_the_end(
    since: int | None, last: int | None, expected: Failing | None
) -> None:
    began = None if since is None else hours_ago(since)
    newest = None if last is None or since is None else hours_ago(since - last)
    assert failing_stage(subscription(failing_since=began, last_failure_at=newest), NOON) is expected


def hours_ago(hours: int) -> datetime:
    return NOON - timedelta(hours=hours)


@pytest.mark.parametrize(
    ("owner", "is_fenced", "expected"),
    [(None, None, None), ("shop", None, "shop"), (None, True, "shop"), ("shop", False, None)],
)
def test_the_role_of_the_token_decides_as_it_is_now(
    owner: str | None, is_fenced: bool | None, expected: str | None
) -> None:
    chosen = subscription(owner=owner, model="z-image", submitted_by="alice").chosen(is_fenced=is_fenced)
    assert chosen == EventFilter(model="z-image", submitted_by="alice", owner=expected)


@pytest.mark.parametrize("status", [SubscriptionStatus.PAUSED, SubscriptionStatus.DISABLED])
def test_what_is_for_an_endpoint_that_is_not_active_is_held(status: SubscriptionStatus) -> None:
    new = NewNotification.of(subscription(status=status), event_id="evt_1", event_type="generation.failed", body=b"{}")
    assert (new.state, new.queue, new.token) == (NotificationState.HELD, "whend_1", "shop")
    assert subscription().state_of_new is NotificationState.PENDING
