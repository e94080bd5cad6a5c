"""When a generation is polled next."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.models import NextPoll, Tracking
from app.polling.claims import PollLease
from app.polling.schedule import LONGEST_GAP, STALLED_GAP, Schedule
from tests.support.clock import NOON

HOUR = timedelta(hours=1)

chances = st.floats(0, 1, exclude_max=True)
ages = st.timedeltas(timedelta(0), timedelta(days=3))


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def make_schedule(chance: float = 0.5, **settings: Any) -> Schedule:
    """A schedule whose models are categories, and whose gaps are neither shortened nor lengthened by this chance."""
    return Schedule(category_of=lambda model: model, chance=lambda: chance, **settings)


def lease(model: str | None = None, **columns: Any) -> PollLease:
    fresh: dict[str, Any] = {"generation_id": "task_1", "lease_until": NOON, "state": Tracking.WATCHING, "polls": 0}
    fresh |= {"next_poll_at": None, "failures": 0, "last_error": None, "not_found_count": 0, "not_found_since": None}
    return PollLease(**{**fresh, "first_seen_at": NOON, "model": model, **columns})


def gap(following: NextPoll, *, since: timedelta) -> float:
    assert following.poll_at is not None
    return (following.poll_at - (NOON + since)).total_seconds()


@pytest.mark.parametrize(
    ("category", "grace"), [("image", 60), ("audio", 120), ("video", 300), ("chat", 120), (None, 120)]
)
def test_the_first_poll_waits_for_the_grace_of_the_category(category: str | None, grace: int) -> None:
    assert make_schedule().first_poll(category, NOON) == NOON + seconds(grace)


@pytest.mark.parametrize("category", ["image", "video", None])
def test_a_grace_that_was_set_holds_for_every_category(category: str | None) -> None:
    assert make_schedule(grace=seconds(7)).first_poll(category, NOON) == NOON + seconds(7)


def test_gaps_grow_by_half_from_the_interval_to_five_minutes() -> None:
    schedule, age, gaps = make_schedule(grace=seconds(60)), seconds(60), []
    for _ in range(12):
        following = schedule.after_answer(lease(), NOON + age)
        gaps.append(gap(following, since=age))
        age += seconds(gaps[-1])
    assert gaps == pytest.approx([min(10 * 1.5**n, 300) for n in range(12)], rel=1e-4)


@given(age=ages, chance=chances)
def test_a_gap_is_never_shorter_than_four_fifths_of_the_interval_nor_longer_than_six_minutes(
    age: timedelta, chance: float
) -> None:
    schedule = make_schedule(chance, grace=seconds(0), horizon=timedelta(days=9))
    following = schedule.after_answer(lease(), NOON + age)
    assert 8 <= gap(following, since=age) <= LONGEST_GAP.total_seconds() * 1.2
    assert following.tracking is Tracking.WATCHING


def test_an_interval_longer_than_five_minutes_is_respected() -> None:
    schedule = make_schedule(interval=seconds(900))
    assert gap(schedule.after_answer(lease(), NOON + HOUR), since=HOUR) == 900


def test_a_generation_polled_early_is_left_alone_until_its_callback_is_overdue() -> None:
    following = make_schedule().after_answer(lease("video"), NOON + seconds(5))
    assert following == NextPoll(NOON + seconds(300), Tracking.WATCHING)


@given(age=st.timedeltas(timedelta(0), timedelta(hours=23)), chance=chances)
def test_without_callbacks_every_gap_is_five_to_ten_seconds(age: timedelta, chance: float) -> None:
    schedule = make_schedule(chance, callbacks_expected=lambda: False)
    following = schedule.after_answer(lease(), NOON + age)
    assert 5 <= gap(following, since=age) <= 10


@given(chance=chances)
def test_past_the_horizon_it_is_stalled_and_polled_hourly_however_the_poll_ended(chance: float) -> None:
    schedule, now = make_schedule(chance, horizon=HOUR), NOON + HOUR
    without_callbacks = make_schedule(chance, horizon=HOUR, callbacks_expected=lambda: False)
    endings = (
        schedule.after_answer(lease("image"), now),
        without_callbacks.after_answer(lease("image"), now),
        schedule.after_failure(lease(), now),
        schedule.after_not_found(lease(), now),
    )
    for following in endings:
        assert following.tracking is Tracking.STALLED
        assert gap(following, since=HOUR) == pytest.approx(STALLED_GAP.total_seconds(), rel=0.2)


def test_a_moment_before_the_horizon_it_is_watched() -> None:
    now = NOON + HOUR - timedelta(microseconds=1)
    following = make_schedule(horizon=HOUR).after_answer(lease("image"), now)
    assert following.tracking is Tracking.WATCHING


def test_failures_in_a_row_double_the_gap_to_five_minutes() -> None:
    schedule = make_schedule()
    gaps = [gap(schedule.after_failure(lease(failures=n), NOON), since=timedelta(0)) for n in range(8)]
    assert gaps == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_million_failures_in_a_row_are_as_bad_as_ten() -> None:
    following = make_schedule().after_failure(lease(failures=1_000_000), NOON)
    assert gap(following, since=timedelta(0)) == 300


@pytest.mark.parametrize(
    ("count", "minutes", "is_lost"), [(1, 0, False), (2, 30, False), (3, 9.9, False), (50, 9.9, False), (3, 10, True)]
)
def test_it_is_lost_after_three_times_not_found_over_ten_minutes(count: int, minutes: float, *, is_lost: bool) -> None:
    now = NOON + timedelta(minutes=minutes)
    following = make_schedule().after_not_found(lease(not_found_count=count - 1, not_found_since=NOON), now)
    assert (following == NextPoll(None, Tracking.LOST)) is is_lost


@given(chance=chances)
def test_the_schedule_finds_a_lost_generation_within_a_quarter_of_an_hour(chance: float) -> None:
    schedule, known = make_schedule(chance), lease(not_found_since=NOON)
    now, count = NOON, 1
    while (following := schedule.after_not_found(replace(known, not_found_count=count - 1), now)).poll_at:
        now, count = following.poll_at, count + 1
    assert timedelta(minutes=10) <= now - NOON <= timedelta(minutes=15)
    assert 3 <= count <= 9


@given(age=ages, chance=chances, failures=st.integers(1, 50), grace=st.sampled_from([None, seconds(1), seconds(3600)]))
def test_no_poll_is_scheduled_beyond_the_bounds(
    age: timedelta, chance: float, failures: int, grace: timedelta | None
) -> None:
    schedule = make_schedule(chance, grace=grace)
    now = NOON + age
    bounds = schedule.bounds(now)
    assert bounds.watched >= schedule.first_poll("video", now)
    well = schedule.after_answer(lease("video"), now)
    poor = schedule.after_failure(lease(failures=failures - 1), now)
    assert well.poll_at is not None
    assert poor.poll_at is not None
    assert well.poll_at <= (bounds.watched if well.tracking is Tracking.WATCHING else bounds.stalled)
    assert poor.poll_at <= (bounds.failing if poor.tracking is Tracking.WATCHING else bounds.stalled)


def test_what_a_clock_that_was_an_hour_ahead_scheduled_is_beyond_the_bounds() -> None:
    schedule = make_schedule(0.0)
    then = NOON + HOUR
    bounds = schedule.bounds(NOON)
    answered = schedule.after_answer(lease("image", first_seen_at=then), then).poll_at
    assert answered is not None
    assert answered > bounds.watched
    failed = schedule.after_failure(lease(first_seen_at=then), then).poll_at
    assert failed is not None
    assert failed > bounds.failing
