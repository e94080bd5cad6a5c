"""How many requests may leave, and when."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ratelimit.budget import (
    HORIZON,
    LEAD_TIME,
    MAX_LATENESS,
    PROBE_INTERVAL,
    Budget,
    ClaimWindow,
    polls_ahead,
    polls_at_once,
    slot_spacing,
)
from tests.support.clock import NOON

FRESH = Budget(next_slot_at=NOON)
KEY = "c0ffee"

rates = st.integers(1, 60)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def most_in_any_second(times: list[datetime]) -> int:
    return max(sum(start <= time < start + seconds(1) for time in times) for start in times)


def reserve_all(rate: float, *, turns: int, apart: timedelta) -> list[datetime]:
    budget, slots, spacing = FRESH, [], slot_spacing(rate)
    for turn in range(turns):
        now = NOON + apart * turn
        budget, reserved = budget.reserve(budget.capacity(now, spacing), now, spacing)
        slots += reserved
    return slots


@given(rate=rates, apart=st.floats(0.05, 2))
def test_no_second_ever_sees_more_than_the_rate_even_if_some_leave_late(rate: int, apart: float) -> None:
    slots = reserve_all(rate, turns=6, apart=seconds(apart))
    mixed = [at + MAX_LATENESS if number % 3 == 0 else at for number, at in enumerate(slots)]
    assert most_in_any_second(mixed) <= rate


@given(rate=rates)
def test_nineteen_twentieths_of_the_rate_are_used_by_whoever_keeps_reserving(rate: int) -> None:
    slots = reserve_all(rate, turns=40, apart=seconds(0.5))
    lasted = (slots[-1] - slots[0]).total_seconds()
    assert len(slots) - 1 >= 0.95 * rate * lasted


@given(rate=st.floats(0.01, 1000))
def test_nothing_is_reserved_further_ahead_than_the_horizon(rate: float) -> None:
    spacing = slot_spacing(rate)
    capacity = FRESH.capacity(NOON, spacing)
    reserved, slots = FRESH.reserve(capacity, NOON, spacing)
    assert capacity >= 1
    assert NOON + LEAD_TIME == slots[0] <= slots[-1] <= NOON + HORIZON
    assert reserved.capacity(NOON, spacing) == 0
    assert reserved.next_slot_at == slots[-1] + spacing


def test_slots_that_passed_unused_are_gone() -> None:
    now = NOON + seconds(3600)
    _, [slot] = FRESH.reserve(1, now, slot_spacing(5))
    assert slot == now + LEAD_TIME


def test_a_clock_that_was_set_back_does_not_stop_polling() -> None:
    reserved_by_yesterdays_clock = Budget(next_slot_at=NOON + timedelta(hours=5))
    assert reserved_by_yesterdays_clock.capacity(NOON, slot_spacing(5)) > 0


def test_refusals_for_haste_double_the_pause_to_five_minutes() -> None:
    budget, now, pauses = FRESH, NOON, []
    for _ in range(8):
        budget = budget.rate_limited(now, retry_after=None, chance=0)
        assert budget.blocked_until is not None
        pauses.append((budget.blocked_until - now).total_seconds())
        now = budget.blocked_until
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]


def test_chance_lengthens_a_pause_by_a_fifth_at_most() -> None:
    assert FRESH.rate_limited(NOON, retry_after=None, chance=1).blocked_until == NOON + seconds(6)


@pytest.mark.parametrize(("asked", "pause"), [(30, 30), (0, 1), (86_400, 3600)])
def test_retry_after_is_obeyed_from_a_second_to_an_hour(asked: float, pause: float) -> None:
    budget = FRESH.rate_limited(NOON, retry_after=asked, chance=1)
    assert budget.blocked_until == NOON + seconds(pause)
    assert budget.is_blocked(NOON + seconds(pause - 0.1))
    assert not budget.is_blocked(NOON + seconds(pause))


@pytest.mark.parametrize("retry_after", [None, 5])
def test_several_refusals_of_one_burst_are_one(retry_after: float | None) -> None:
    once = FRESH.rate_limited(NOON, retry_after=20, chance=0)
    again = once.rate_limited(NOON + seconds(0.2), retry_after=retry_after, chance=0)
    assert again == once


def test_a_longer_retry_after_extends_the_pause() -> None:
    once = FRESH.rate_limited(NOON, retry_after=20, chance=0)
    again = once.rate_limited(NOON, retry_after=60, chance=0)
    assert (again.blocked_until, again.blocks) == (NOON + seconds(60), 1)


def test_an_answer_forgets_the_refusals_once_the_pause_is_over() -> None:
    blocked = FRESH.rate_limited(NOON, retry_after=20, chance=0)
    assert blocked.answered(NOON + seconds(19)) == blocked
    assert blocked.answered(NOON + seconds(20)) == FRESH


def test_a_refused_key_stops_that_key_only() -> None:
    stopped = FRESH.stopped(NOON, key=KEY, status=401, reason="api_key_revoked")
    assert stopped.is_stopped(KEY)
    assert stopped.is_key_refused(KEY)
    assert not stopped.is_stopped("another")
    assert not stopped.is_key_refused("another")


def test_a_missing_scope_refuses_polls_but_not_the_key() -> None:
    stopped = FRESH.stopped(NOON, key=KEY, status=403, reason="api_scope_denied")
    assert stopped.is_stopped(KEY)
    assert not stopped.is_key_refused(KEY)


def test_one_probe_is_due_every_five_minutes() -> None:
    stopped = FRESH.stopped(NOON, key=KEY, status=401, reason="api_key_revoked")
    later = NOON + PROBE_INTERVAL
    assert not stopped.may_probe(later - seconds(1))
    assert stopped.may_probe(later)
    probing, slot = stopped.reserve_probe(later, slot_spacing(5))
    assert slot == later + LEAD_TIME
    assert probing.next_slot_at == slot + slot_spacing(5)
    assert not probing.may_probe(later + seconds(1))
    assert probing.may_probe(later + PROBE_INTERVAL)


def test_a_budget_that_was_never_stopped_may_be_probed() -> None:
    assert FRESH.may_probe(NOON)


def test_a_good_key_leaves_nothing_of_the_stop() -> None:
    assert FRESH.stopped(NOON, key=KEY, status=401, reason="api_key_revoked").resumed() == FRESH


def test_a_pause_or_a_stop_that_ends_later_than_any_can_was_written_by_a_clock_set_back_since() -> None:
    asked = FRESH.rate_limited(NOON, retry_after=3600, chance=0.0)
    assert asked.is_blocked(NOON)
    assert not asked.is_blocked(NOON - seconds(1))
    stopped = FRESH.stopped(NOON, key=KEY, status=401, reason="api_key_invalid")
    assert not stopped.may_probe(NOON)
    assert stopped.may_probe(NOON - seconds(1))
    assert stopped.may_probe(NOON + PROBE_INTERVAL)


def test_a_pause_that_is_over_leaves_how_often_there_was_one() -> None:
    over = FRESH.rate_limited(NOON, retry_after=30, chance=0.0).unblocked()
    assert (over.is_blocked(NOON), over.blocks) == (False, 1)


@pytest.mark.parametrize(("rate", "polls", "ahead"), [(0.5, 16, 1), (5, 16, 5), (200, 120, 200), (10_000, 512, 0)])
def test_a_process_takes_on_as_much_as_the_rate_allows_and_it_can_do(rate: float, polls: int, ahead: int) -> None:
    assert (polls_at_once(rate), polls_ahead(rate)) == (polls, ahead)


def test_polls_that_miss_their_slots_leave_fewer_to_be_claimed_and_answers_bring_them_back() -> None:
    window = ClaimWindow(40, rate=1000)
    sizes = []
    for was_sent in [False] * 5 + [True] * 3:
        window.adapt(was_sent=was_sent)
        sizes.append(window.size)
    assert sizes == [38, 36, 34, 32, 30, 31, 32, 33]


@pytest.mark.parametrize(("most", "rate", "fewest"), [(384, 401, 16), (4, 401, 4), (384, 400, 384)])
def test_there_are_always_some_to_claim_and_as_many_as_ever_at_a_rate_that_is_easily_kept(
    most: int, rate: float, fewest: int
) -> None:
    window = ClaimWindow(most, rate=rate)
    window.adapt(was_sent=True)
    assert window.size == most
    for _ in range(most):
        window.adapt(was_sent=False)
    assert window.size == fewest
