"""Wrong tokens at the sign-in: slower with each, refused after ten, forgotten after a while, bounded in memory."""

import pytest

from app.console.sign_in import MOST_ADDRESSES, MOST_FAILURES, WINDOW, FailedSignIns, TooManyFailures
from tests.support.clock import ManualClock


def test_each_failure_is_answered_later_up_to_two_seconds() -> None:
    failed = FailedSignIns(ManualClock())
    pauses = [failed.record("192.0.2.1") for _ in range(MOST_FAILURES)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0, 2.0]


def test_an_address_is_refused_until_its_oldest_failure_does_not_count_any_more() -> None:
    clock = ManualClock()
    failed = FailedSignIns(clock)
    for _ in range(MOST_FAILURES):
        failed.record("192.0.2.1")
        clock.advance(seconds=1)
    with pytest.raises(TooManyFailures) as refused:
        failed.record("192.0.2.1")
    assert refused.value.retry_after == WINDOW - MOST_FAILURES
    clock.advance(seconds=WINDOW - MOST_FAILURES)
    assert failed.record("192.0.2.1") == 2.0
    with pytest.raises(TooManyFailures):
        failed.record("192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        (None, "not an address", True),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(one: str | None, other: str, are_one: bool) -> None:
    failed = FailedSignIns(ManualClock())
    failed.record(one)
    assert failed.record(other) == (0.2 if are_one else 0.1)


def test_the_addresses_that_failed_longest_ago_are_forgotten_first() -> None:
    failed = FailedSignIns(ManualClock())
    failed.record("192.0.2.1")
    failed.record("192.0.2.2")
    failed.record("192.0.2.1")
    for index in range(MOST_ADDRESSES - 1):
        failed.record(f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}")
    assert failed.record("192.0.2.1") == 0.4
    assert failed.record("192.0.2.2") == 0.1
