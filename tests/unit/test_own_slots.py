"""The slots that a process has booked and not used."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.polling.budget import PUNCTUAL, Pace
from app.polling.own_slots import OwnSlots
from tests.clock import NOON


def slots_of(pace: Pace, count: int) -> OwnSlots:
    own = OwnSlots(pace.step)
    for number in range(count):
        own.add(pace.moments(pace.slot(NOON + pace.step * pace.width * number)))
    return own


def leave(own: OwnSlots, now: datetime) -> int:
    """As many requests as may."""
    left = 0
    while (first := own.first(now)) is not None and first <= now:
        own.use_first()
        left += 1
    return left


def test_a_slot_is_good_for_one_request_from_when_it_begins_until_it_is_too_late() -> None:
    own = slots_of(Pace(rate=5), 1)
    assert own.first(NOON - timedelta(seconds=1)) == NOON
    assert own.first(NOON + PUNCTUAL) == NOON
    assert own.first(NOON + PUNCTUAL + timedelta(microseconds=1)) is None
    own = slots_of(Pace(rate=5), 1)
    own.use_first()
    assert len(own) == 0


def test_a_moment_between_two_slots_that_were_not_used_costs_both() -> None:
    pace = Pace(rate=5)
    own, late = slots_of(pace, 3), NOON + PUNCTUAL * 2
    assert leave(own, late) == 1
    assert own.first(late) == NOON + pace.step * 2


def test_a_slot_is_not_used_early_where_the_one_before_it_was_somebody_elses() -> None:
    pace = Pace(rate=5)
    own = OwnSlots(pace.step)
    own.add([NOON, NOON + pace.step * 2])
    assert own.first(NOON + PUNCTUAL * 2) == NOON + pace.step * 2


def test_slots_that_are_void_are_gone() -> None:
    own = slots_of(Pace(rate=5, width=2), 2)
    assert len(own) == 4
    own.clear()
    assert own.first(NOON) is None


@given(
    rate=st.sampled_from([5, 50, 200]),
    width=st.integers(1, 4),
    pauses=st.lists(st.floats(0.0, 0.3), min_size=1, max_size=60),
)
def test_however_a_process_is_held_up_no_second_sees_more_than_the_rate(
    rate: int, width: int, pauses: list[float]
) -> None:
    own, now, moments = slots_of(Pace(rate=rate, width=width), rate * 4), NOON, []
    for pause in pauses:
        now += timedelta(seconds=pause)
        moments += [now] * leave(own, now)
    second = timedelta(seconds=1)
    assert max((sum(start <= it < start + second for it in moments) for start in moments), default=0) <= rate
