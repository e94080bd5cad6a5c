"""The time that usage is summed over: completed where it was left open, refused where it makes no sense."""

from datetime import UTC, datetime, timedelta

import pytest

from app.api.usage import LONGEST, Window, window
from app.core.errors import RequestInvalid
from tests.support.clock import NOON

MIDNIGHT = NOON.replace(hour=0)
DAY = timedelta(days=1)


def test_without_a_word_it_is_the_last_thirty_days_whole() -> None:
    assert window(None, None, now=NOON) == Window(MIDNIGHT - 30 * DAY, NOON)


def test_what_was_asked_for_is_taken_as_it_is() -> None:
    assert window(NOON - DAY, NOON, now=NOON + DAY) == Window(NOON - DAY, NOON)
    assert window(NOON - LONGEST, NOON, now=NOON) == Window(NOON - LONGEST, NOON)


@pytest.mark.parametrize(
    ("first", "end", "message"),
    [
        (NOON, NOON, "from: must be before to."),
        (NOON + DAY, None, "from: must be before to."),
        (NOON - LONGEST - timedelta(hours=1), None, "from, to: must not be more than 366 days apart."),
        (
            NOON - timedelta(minutes=30),
            None,
            "from: must be a day or a whole hour in UTC; usage is summed by the hour.",
        ),
        (
            None,
            NOON - timedelta(seconds=1),
            "to: must be a day or a whole hour in UTC; usage is summed by the hour.",
        ),
        (
            None,
            datetime.min.replace(tzinfo=UTC) + 29 * DAY,
            "to: must leave room for the 30 days before it, or come with a from.",
        ),
    ],
)
def test_no_time_and_too_much_of_it_are_refused(first: datetime | None, end: datetime | None, message: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        window(first, end, now=NOON)
    assert refused.value.message == message


def test_a_window_that_ends_now_takes_the_whole_hour_that_is_under_way() -> None:
    assert Window(MIDNIGHT, NOON).last_hour_ends == NOON
    now = NOON + timedelta(minutes=1, microseconds=1)
    assert window(None, None, now=now).last_hour_ends == NOON + timedelta(hours=1)
