"""The time that has elapsed, where the system does not count the time for which it was suspended."""

import time

import pytest

from app.core.clock import seconds_elapsed


def test_without_a_clock_that_counts_suspension_the_monotonic_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    before = time.monotonic()
    assert before <= seconds_elapsed() <= time.monotonic()
