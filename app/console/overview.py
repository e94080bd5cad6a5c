"""The first page: is all well, what is open, and what the last hour, day or week brought."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Query, Request, Response
from fastapi.routing import APIRouter
from pydantic import BaseModel, ConfigDict

from app.console.charts import WINDOWS, Chart, Series, Window, stacked
from app.console.filters import number, segment, words
from app.console.pages import Console
from app.core.auth import Caller, Role
from app.core.errors import HealthCheck, ServiceError
from app.ledger.metrics import DELIVERIES, FAILED, FAILED_POLLS, POLLS, REFUSALS, SETTLED, ActivitySum
from app.ledger.models import MOST_OPEN, Source, Tracking
from app.notifications.models import SubscriptionStatus
from app.notifications.repository import NotificationRepository
from app.notifications.service import owner_of

_CREDITS_KEPT: Final = timedelta(minutes=1)
_MOST_FAILING: Final = 10


class OverviewParameters(BaseModel):
    """Of GET /console."""

    model_config = ConfigDict(extra="forbid")

    range: Literal["hour", "day", "week"] = "hour"


@dataclass(frozen=True, slots=True)
class _Problem:
    name: str
    text: str
    is_required: bool = False
    url: str | None = None
    """The page that tells more."""


class _RecentSums:
    """The sums of each window, read once for all who look within a few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._sums: dict[str, tuple[float, datetime, list[ActivitySum]]] = {}
        self._lock = asyncio.Lock()

    async def get(self, window: Window) -> tuple[datetime, list[ActivitySum]]:
        """When the sums of the window were read, and they themselves. Raises `DatabaseUnavailable`."""
        clock = self._console.clock
        async with self._lock:
            read_at, now, sums = self._sums.get(window.name, (-math.inf, clock.now(), []))
            if clock.monotonic() - read_at >= window.cached:
                now = clock.now()
                sums = await self._console.activity.sums(window.begins(now), prefix=window.prefix)
                self._sums[window.name] = (clock.monotonic(), now, sums)
        return now, sums


def router(console: Console) -> APIRouter:
    """The page, and the credits that it loads afterwards."""
    routes, balance = console.router(), console.gateway.balance
    recent_sums, asking = _RecentSums(console), asyncio.Lock()

    @routes.get("")
    async def show(
        request: Request,
        parameters: Annotated[OverviewParameters, Query()],
        caller: Annotated[Caller, Depends(console.require(Role.READ))],
    ) -> Response:
        """The overview."""
        checks = await console.readiness.get()
        values: dict[str, Any] = {} if caller.role.is_fenced else await _record(console, recent_sums, parameters.range)
        return console.page(
            request,
            "overview.html",
            title="Overview",
            problems=[
                *_problems(checks, shows_details=caller.role is Role.ADMIN),
                *await _failing_webhooks(console.notifications, caller),
            ],
            checks=checks,
            credits=_shown_credits(balance.latest(within=_CREDITS_KEPT)),
            replicas=await console.heartbeat.running(),
            **values,
        )

    @routes.get("/credits")
    async def show_credits(request: Request, _: Annotated[Caller, Depends(console.require(Role.READ))]) -> Response:
        """The credits of the account, as Rivya reported them in the last minute; asks Rivya for that."""
        async with asking:
            if balance.latest(within=_CREDITS_KEPT) is None:
                with suppress(ServiceError):
                    await console.gateway.credits(request)
        shown = _shown_credits(balance.latest(within=_CREDITS_KEPT))
        return Response(shown or "not known", media_type="text/html", headers={"Cache-Control": "no-store"})

    return routes


def _shown_credits(value: float | None) -> str | None:
    return None if value is None else number(value)


def _problems(checks: Sequence[HealthCheck], *, shows_details: bool) -> list[_Problem]:
    """What is not ok, what is required first; names and figures for an admin only, as at /readyz."""
    return [
        _Problem(words(check.name), check.detail if shows_details else check.remedy, check.is_required)
        for check in sorted(checks, key=lambda check: not check.is_required)
        if not check.ok
    ]


async def _failing_webhooks(notifications: NotificationRepository, caller: Caller) -> list[_Problem]:
    """Those that the caller may see, as on the page of webhooks."""
    if not caller.role.allows(Role.WRITE):
        return []
    failing = await notifications.failing_subscriptions(token=owner_of(caller), limit=_MOST_FAILING)
    return [
        _Problem(
            f"Webhook {webhook.name or webhook.url}",
            "It is switched off, as it failed for too long or answered 410: mend it, then activate it."
            if webhook.status is SubscriptionStatus.DISABLED
            else f"It fails: {webhook.failure_count} attempts in a row. See what it answers, or pause it.",
            url=f"/console/webhooks/{segment(webhook.id)}",
        )
        for webhook in failing
    ]


async def _record(console: Console, recent_sums: _RecentSums, name: str) -> dict[str, Any]:
    """What the page shows of the whole record, to those who may see all of it."""
    window = next(window for window in WINDOWS if window.name == name)
    hour = WINDOWS[0]
    by_tracking = await console.queries.open_by_tracking()
    now, sums = await recent_sums.get(window)
    _, last_hour = await recent_sums.get(hour)
    by_source = {source: _total(last_hour, SETTLED[source]) for source in Source}
    return {
        "window": window,
        "windows": [(each.name, each.label) for each in WINDOWS],
        "open": min(sum(by_tracking.values()), MOST_OPEN),
        "most_open": MOST_OPEN,
        "stalled": by_tracking[Tracking.STALLED],
        "lost": by_tracking[Tracking.LOST],
        "settled": sum(by_source.values()),
        "failed": _total(last_hour, FAILED),
        "missed": by_source[Source.POLL],
        "charts": charts(sums, window, now),
    }


def _total(sums: Sequence[ActivitySum], what: str) -> int:
    return sum(each.counts[0] for each in sums if each.what == what)


def charts(sums: Sequence[ActivitySum], window: Window, now: datetime) -> list[Chart]:
    """The four charts of these sums."""
    counts: defaultdict[str, defaultdict[datetime, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0] * 5))
    for each in sums:
        summed = counts[each.what][window.part(each.begins)]
        for index, count in enumerate(each.counts):
            summed[index] += count

    def counted(*whats: str) -> dict[datetime, float]:
        values: defaultdict[datetime, float] = defaultdict(float)
        for what in whats:
            for time, row in counts[what].items():
                values[time] += row[0]
        return values

    webhook = counts[SETTLED[Source.WEBHOOK]]
    # Each count includes those that took less; the first one is the number of all.
    slower = {
        time: [row[1], row[2] - row[1], row[3] - row[2], row[4] - row[3], row[0] - row[4]]
        for time, row in webhook.items()
    }
    latencies = ("within 1 s", "within 10 s", "within 1 min", "within 10 min", "later")
    colours = ("series-3", "series-1", "series-2", "series-4", "series-5")
    draw = partial(stacked, window=window, now=now)
    outcomes = [
        Series("by webhook", "series-1", counted(SETTLED[Source.WEBHOOK])),
        Series("by poll", "series-2", counted(SETTLED[Source.POLL])),
        Series("otherwise", "series-5", counted(SETTLED[Source.SUBMIT], SETTLED[Source.OPERATOR])),
    ]
    latency = [
        Series(label, colour, {time: row[index] for time, row in slower.items()})
        for index, (label, colour) in enumerate(zip(latencies, colours, strict=True))
    ]
    deliveries = [Series("recorded", "series-3", counted(DELIVERIES)), Series("refused", "series-4", counted(REFUSALS))]
    polls = [Series("answered", "series-1", counted(POLLS)), Series("failed", "series-4", counted(FAILED_POLLS))]
    return [
        draw(
            "outcomes",
            "Outcomes",
            outcomes,
            unit="generations settled",
            nothing="No generation was settled in this time.",
        ),
        draw(
            "latency",
            "Callback latency",
            latency,
            unit="callbacks",
            nothing="No callback brought an outcome in this time.",
        ),
        draw(
            "deliveries", "Deliveries", deliveries, unit="deliveries", nothing="Rivya delivered nothing in this time."
        ),
        draw("polls", "Polls", polls, unit="polls", nothing="No poll was needed in this time."),
    ]
