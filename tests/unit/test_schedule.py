"""When a generation is polled next."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.models import NextPoll, Tracking
from app.polling.schedule import LONGEST_GAP, STALLED_GAP, Schedule
from tests.support.clock import NOON

MIDDLE = 0.5  # the chance that neither shortens nor lengthens a gap
HOUR = timedelta(hours=1)

chances = st.floats(0, 1, exclude_max=True)
ages = st.timedeltas(timedelta(0), timedelta(days=3))


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def gap(following: NextPoll, *, since: timedelta) -> float:
    assert following.poll_at is not None
    return (following.poll_at - (NOON + since)).total_seconds()


@pytest.mark.parametrize(
    ("category", "grace"), [("image", 60), ("audio", 120), ("video", 300), ("chat", 120), (None, 120)]
)
def test_the_first_poll_waits_for_the_grace_of_the_category(category: str | None, grace: int) -> None:
    assert Schedule().first_poll(NOON, category=category) == NOON + seconds(grace)


@pytest.mark.parametrize("category", ["image", "video", None])
def test_a_grace_that_was_set_holds_for_every_category(category: str | None) -> None:
    assert Schedule(grace=seconds(7)).first_poll(NOON, category=category) == NOON + seconds(7)


def test_gaps_grow_by_half_from_the_interval_to_five_minutes() -> None:
    schedule, age, gaps = Schedule(grace=seconds(60)), seconds(60), []
    for _ in range(12):
        following = schedule.after_answer(NOON, category=None, now=NOON + age, chance=MIDDLE)
        gaps.append(gap(following, since=age))
        age += seconds(gaps[-1])
    assert gaps == pytest.approx([min(10 * 1.5**n, 300) for n in range(12)], rel=1e-4)


@given(age=ages, chance=chances)
def test_a_gap_is_never_shorter_than_four_fifths_of_the_interval_nor_longer_than_six_minutes(
    age: timedelta, chance: float
) -> None:
    schedule = Schedule(grace=seconds(0), horizon=timedelta(days=9))
    following = schedule.after_answer(NOON, category=None, now=NOON + age, chance=chance)
    assert 8 <= gap(following, since=age) <= LONGEST_GAP.total_seconds() * 1.2
    assert following.tracking is Tracking.WATCHING


def test_an_interval_longer_than_five_minutes_is_respected() -> None:
    schedule = Schedule(interval=seconds(900))
    assert gap(schedule.after_answer(NOON, category=None, now=NOON + HOUR, chance=MIDDLE), since=HOUR) == 900


def test_a_generation_polled_early_is_left_alone_until_its_callback_is_overdue() -> None:
    following = Schedule().after_answer(NOON, category="video", now=NOON + seconds(5), chance=MIDDLE)
    assert following == NextPoll(NOON + seconds(300), Tracking.WATCHING)


@given(age=st.timedeltas(timedelta(0), timedelta(hours=23)), chance=chances)
def test_without_callbacks_every_gap_is_five_to_ten_seconds(age: timedelta, chance: float) -> None:
    following = Schedule().after_answer_without_callbacks(NOON, now=NOON + age, chance=chance)
    assert 5 <= gap(following, since=age) <= 10


@given(chance=chances)
def test_past_the_horizon_it_is_stalled_and_polled_hourly_however_the_poll_ended(chance: float) -> None:
    schedule, age = Schedule(horizon=HOUR), HOUR
    now = NOON + age
    endings = (
        schedule.after_answer(NOON, category="image", now=now, chance=chance),
        schedule.after_answer_without_callbacks(NOON, now=now, chance=chance),
        schedule.after_failure(NOON, failures=1, now=now, chance=chance),
        schedule.after_not_found(NOON, count=1, since=now, now=now, chance=chance),
    )
    for following in endings:
        assert following.tracking is Tracking.STALLED
        assert gap(following, since=age) == pytest.approx(STALLED_GAP.total_seconds(), rel=0.2)


def test_a_moment_before_the_horizon_it_is_watched() -> None:
    now = NOON + HOUR - timedelta(microseconds=1)
    following = Schedule(horizon=HOUR).after_answer(NOON, category="image", now=now, chance=MIDDLE)
    assert following.tracking is Tracking.WATCHING


def test_failures_in_a_row_double_the_gap_to_five_minutes() -> None:
    schedule = Schedule()
    gaps = [
        gap(schedule.after_failure(NOON, failures=n, now=NOON, chance=MIDDLE), since=timedelta(0)) for n in range(1, 9)
    ]
    assert gaps == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_million_failures_in_a_row_are_as_bad_as_ten() -> None:
    following = Schedule().after_failure(NOON, failures=1_000_000, now=NOON, chance=MIDDLE)
    assert gap(following, since=timedelta(0)) == 300


@pytest.mark.parametrize(
    ("count", "minutes", "is_lost"), [(1, 0, False), (2, 30, False), (3, 9.9, False), (50, 9.9, False), (3, 10, True)]
)
def test_it_is_lost_after_three_times_not_found_over_ten_minutes(count: int, minutes: float, *, is_lost: bool) -> None:
    now = NOON + timedelta(minutes=minutes)
    following = Schedule().after_not_found(NOON, count=count, since=NOON, now=now, chance=MIDDLE)
    assert (following == NextPoll(None, Tracking.LOST)) is is_lost


@given(chance=chances)
def test_the_schedule_finds_a_lost_generation_within_a_quarter_of_an_hour(chance: float) -> None:
    now, count = NOON, 1
    while (following := Schedule().after_not_found(NOON, count=count, since=NOON, now=now, chance=chance)).poll_at:
        now, count = following.poll_at, count + 1
    assert timedelta(minutes=10) <= now - NOON <= timedelta(minutes=15)
    assert 3 <= count <= 9


@given(age=ages, chance=chances, failures=st.integers(1, 50), grace=st.sampled_from([None, seconds(1), seconds(3600)]))
def test_no_poll_is_scheduled_beyond_the_bounds(
    age: timedelta, chance: float, failures: int, grace: timedelta | None
) -> None:
    schedule = Schedule(grace=grace)
    now = NOON + age
    bounds = schedule.bounds(now)
    assert bounds.watched >= schedule.first_poll(now, category="video")
    well = schedule.after_answer(NOON, category="video", now=now, chance=chance)
    poor = schedule.after_failure(NOON, failures=failures, now=now, chance=chance)
    assert well.poll_at is not None
    assert poor.poll_at is not None
    assert well.poll_at <= (bounds.watched if well.tracking is Tracking.WATCHING else bounds.stalled)
    assert poor.poll_at <= (bounds.failing if poor.tracking is Tracking.WATCHING else bounds.stalled)


def test_what_a_clock_that_was_an_hour_ahead_scheduled_is_beyond_the_bounds() -> None:
    schedule = Schedule()
    then = NOON + HOUR
    bounds = schedule.bounds(NOON)
    answered = schedule.after_answer(then, category="image", now=then, chance=0.0).poll_at
    assert answered is not None
    assert answered > bounds.watched
    failed = schedule.after_failure(then, failures=1, now=then, chance=0.0).poll_at
    assert failed is not None
    assert failed > bounds.failing
