"""Retries of an unknown outcome: soon, then slower, never less than asked, hourly after a day."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.submission.outcome import LONGEST, pause_before_retry

SOON = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("retries", "seconds"), [(0, 5), (1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (8, 600), (10**9, 600)]
)
def test_the_pause_doubles_from_five_seconds_to_ten_minutes(retries: int, seconds: int) -> None:
    assert pause_before_retry(retries, SOON, jitter=0) == timedelta(seconds=seconds)


def test_after_a_day_it_is_tried_hourly() -> None:
    assert pause_before_retry(200, timedelta(hours=24), jitter=0) == timedelta(hours=1)


def test_a_wait_that_rivya_asks_for_is_kept() -> None:
    assert pause_before_retry(0, SOON, jitter=-1, retry_after=90) == timedelta(seconds=90)


@given(retries=st.integers(0, 1000), jitter=st.floats(-1, 1))
def test_jitter_moves_a_pause_by_a_fifth_at_most(retries: int, jitter: float) -> None:
    steady = pause_before_retry(retries, SOON, jitter=0)
    moved = pause_before_retry(retries, SOON, jitter=jitter)
    assert steady * 0.79 < moved < steady * 1.21
    assert moved <= LONGEST * 1.2
