"""How deliveries fared adds up to the same, in whatever order replicas write it down."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.endpoint.health import DeliveryCounts
from tests.support.clock import NOON

NEVER = DeliveryCounts()
SECOND = timedelta(seconds=1)

_events = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=12)


def _counted(events: list[tuple[bool, int]]) -> DeliveryCounts:
    counts = DeliveryCounts()
    for is_verified, seconds in events:
        (counts.record_verified if is_verified else counts.record_refused)(NOON + seconds * SECOND)
    return counts


def test_a_verified_delivery_ends_the_count_of_refusals() -> None:
    refused = _counted([(False, 1), (False, 2)]).merged(NEVER)
    assert refused == DeliveryCounts(None, NOON + 2 * SECOND, 2)
    assert _counted([(True, 3)]).merged(refused) == DeliveryCounts(NOON + 3 * SECOND, NOON + 2 * SECOND, 0)


def test_a_refusal_after_a_verified_delivery_counts_anew() -> None:
    before = DeliveryCounts(NOON, NOON - SECOND, 0)
    assert _counted([(False, 1)]).merged(before) == DeliveryCounts(NOON, NOON + SECOND, 1)


def test_a_refusal_seen_before_a_delivery_that_another_replica_verified_does_not_count() -> None:
    assert _counted([(False, 1)]).merged(DeliveryCounts(NOON + 2 * SECOND, None, 0)).refusals == 0


@given(_events, _events)
def test_the_times_do_not_depend_on_who_writes_first(
    one: list[tuple[bool, int]], other: list[tuple[bool, int]]
) -> None:
    a, b = _counted(one), _counted(other)
    first, second = b.merged(a.merged(NEVER)), a.merged(b.merged(NEVER))
    assert (first.last_verified_at, first.last_refused_at) == (second.last_verified_at, second.last_refused_at)


@given(_events)
def test_there_are_refusals_exactly_when_the_last_word_was_a_refusal(events: list[tuple[bool, int]]) -> None:
    stored = _counted(sorted(events, key=lambda noted: (noted[1], noted[0]))).merged(NEVER)
    verified, refused = stored.last_verified_at, stored.last_refused_at
    assert (stored.refusals > 0) == (refused is not None and (verified is None or refused > verified))


@given(_events, _events)
def test_what_could_not_be_written_is_added_to_what_came_after(
    one: list[tuple[bool, int]], other: list[tuple[bool, int]]
) -> None:
    assert _counted(one).added(_counted(other)) == _counted(one + other)
