"""By when our record must be the truth once a lying Rivya behaves: said by the service's settings and its schedule."""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from app.ledger.tables import generations
from app.polling.schedule import LONGEST_GAP, Schedule
from app.submission.outcome import pause_before_retry
from app.submission.store import submissions
from tests.support.faulty_provider_service import GRACE, INTERVAL, FaultyProviderService

SPREAD = 1.2
A_TURN = timedelta(seconds=2)
"""A loop looks once a second; a delivery is a second on its way."""


async def allowed_until(rivya: FaultyProviderService, now: datetime) -> defaultdict[str, datetime]:
    """By when the record must know each generation: the rest of its grace, and two intervals as they have become.

    What Rivya last asked for comes on top: its Retry-After, or our rest until the next probe of a refused key. A create
    without an answer is first sent again, within two of its own intervals; the rest is counted from there.
    """
    budget = await rivya.service.limiter.read()
    pauses = (None, None) if budget is None else (budget.blocked_until, budget.stopped_until)
    start = max([now, *(until for until in pauses if until is not None)]) + A_TURN
    sends = [row for row in await rivya.rows(submissions) if row["next_attempt_at"] is not None]
    resend = max((_resend(row, now) for row in sends), default=timedelta(0))
    late = start + 2 * resend + GRACE + 2 * INTERVAL * SPREAD
    known = {row["id"]: start + _rest(row, now) for row in await rivya.rows(generations)}
    return defaultdict(lambda: late, known)


def _resend(row: dict[str, Any], now: datetime) -> timedelta:
    return pause_before_retry(row["retries"], now - row["sent_at"], jitter=1)


def _rest(row: dict[str, Any], now: datetime) -> timedelta:
    overdue_at = Schedule(grace=GRACE, interval=INTERVAL).first_poll(None, row["first_seen_at"])
    failing = INTERVAL * 2 ** min(max(row["failures"] or 0, row["not_found_count"] or 0, 1) - 1, 10)
    gap = min(max(INTERVAL + max(now - overdue_at, timedelta(0)) / 2, failing), LONGEST_GAP) * SPREAD
    left: timedelta = max(overdue_at - now, timedelta(0)) + 2 * gap
    return left
