"""How polling stands, in words for the operator; pure."""

from datetime import datetime

from app.core.errors import Finding
from app.polling.budget import Budget

_NAME = "polling"


def standing(budget: Budget | None, key: str, *, now: datetime, rate: float) -> Finding:
    """What `/readyz` and `check` show; deliveries are taken all the same, so it is never required."""
    if budget is not None and budget.is_stopped(key):
        return Finding(_NAME, ok=False, detail=_stopped(budget, key), is_required=False)
    if budget is not None and budget.is_blocked(now):
        until = f"{budget.blocked_until:%H:%M:%S} UTC"
        return Finding(_NAME, ok=True, detail=f"paused until {until}, as Rivya asked (429)", is_required=False)
    return Finding(_NAME, ok=True, detail=f"at most {rate:g} requests per second", is_required=False)


def _stopped(budget: Budget, key: str) -> str:
    if budget.is_key_refused(key):
        what = "Rivya refuses RIVYA_API_KEY"
        remedy = "set a valid key and restart"
    else:
        what = "Rivya refuses to tell generations to RIVYA_API_KEY"
        remedy = "give the key the scope generations:read, or set another key, and restart"
    return f"stopped: {what} ({budget.stopped_reason}); {remedy}"
