"""When a submission of unknown outcome is sent again: 5 seconds, doubling to 10 minutes, hourly after a day; pure."""

from datetime import timedelta

FIRST = timedelta(seconds=5)
LONGEST = timedelta(minutes=10)
UNRESOLVED_AFTER = timedelta(hours=24)
UNRESOLVED_INTERVAL = timedelta(hours=1)

_SPREAD = 0.2
_MOST_DOUBLINGS = 7  # 5 seconds, seven times doubled, is past the longest


def pause_before_retry(retries: int, age: timedelta, *, jitter: float, retry_after: float | None = None) -> timedelta:
    """How long to wait after so many `retries` of a submission sent `age` ago.

    `jitter` from -1 to 1 moves the pause by up to a fifth; `retry_after` is the fewest seconds asked for.
    """
    growing = min(FIRST * 2 ** min(retries, _MOST_DOUBLINGS), LONGEST)
    pause = (UNRESOLVED_INTERVAL if age >= UNRESOLVED_AFTER else growing) * (1 + _SPREAD * jitter)
    return max(pause, timedelta(seconds=retry_after or 0))
