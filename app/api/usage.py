"""/api/v1/usage: generations and their credits, by token name, model and day."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.parameters import UsageParameters
from app.api.schemas import answer, errors
from app.core.auth import Access, Caller, Role
from app.core.clock import Clock
from app.core.errors import RequestInvalid
from app.ledger.queries import Queries
from app.ledger.serializers import format_time
from app.ledger.sql import UsageLine

MOST_LINES = 10_000


def router(queries: Queries, access: Access, *, clock: Clock) -> APIRouter:
    """The route about usage."""
    routes = APIRouter(prefix="/api/v1", tags=["usage"])

    @routes.get(
        "/usage", summary="Sum generations and credits by caller", response_model=UsageListOut, responses=errors(400)
    )
    async def sum_usage(
        parameters: Annotated[UsageParameters, Query()], caller: Annotated[Caller, Depends(access.require(Role.READ))]
    ) -> Response:
        """By the name of the token that submitted them, model, and UTC day of `tracking.first_seen_at`.

        Generations only: what chat costs is in its own answers. Reserved credits stay counted as reserved, final
        credits count once Rivya has reported them. `from` and `to` are days or whole hours in UTC, at most 366 days
        apart. Models beyond the 200 busiest, or fewer where there would be more than 10,000 lines, are summed as
        `other`.
        """
        asked, lines = await read_usage(queries, parameters, caller, now=clock.now())
        data = [_rendered(line) for line in lines]
        return answer({"object": "list", "from": format_time(asked.first), "to": format_time(asked.end), "data": data})

    return routes


async def read_usage(
    queries: Queries, parameters: UsageParameters, caller: Caller, *, now: datetime
) -> "tuple[Window, list[UsageLine]]":
    """The window that is asked for, and its lines that the caller sees. Raises `RequestInvalid`."""
    asked = window(parameters.first, parameters.to, now=now)
    lines = await queries.usage(asked.first, asked.last_hour_ends, most=MOST_LINES + 1, owner=caller.owner)
    if len(lines) > MOST_LINES:
        raise RequestInvalid(f"from, to: hold more than {MOST_LINES} lines; ask for a shorter time.")
    return asked, lines


def _rendered(line: UsageLine) -> dict[str, Any]:
    return {
        "day": line.day.isoformat(),
        "submitted_by": line.submitted_by,
        "model": line.model,
        "generations": line.generations,
        "open": line.open,
        "reserved_credits": line.reserved_credits,
        "final_credits": line.final_credits,
    }


LONGEST = timedelta(days=366)
HOUR = timedelta(hours=1)
USUAL = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Window:
    """From `first` and before `end`: whole hours, except an end that is now."""

    first: datetime
    end: datetime

    @property
    def last_hour_ends(self) -> datetime:
        """The end of the hour in which the window ends: the current hour is included up to now."""
        hour = hour_of(self.end)
        return hour if hour == self.end else hour + HOUR


def window(first: datetime | None, end: datetime | None, *, now: datetime) -> Window:
    """The requested window; by default it ends now, and begins with the day 30 days before its end.

    Raises `RequestInvalid`, also for a time that is no whole hour in UTC: usage is stored by the hour.
    """
    for name, given in (("from", first), ("to", end)):
        if given is not None and given != hour_of(given):
            raise RequestInvalid(f"{name}: must be a day or a whole hour in UTC; usage is summed by the hour.")
    end = end if end is not None else now
    if first is None:
        first = _usual_beginning(end)
    if first >= end:
        raise RequestInvalid("from: must be before to.")
    if end - first > LONGEST:
        raise RequestInvalid(f"from, to: must not be more than {LONGEST.days} days apart.")
    return Window(first, end)


def _usual_beginning(end: datetime) -> datetime:
    try:
        return (end - USUAL).replace(hour=0, minute=0, second=0, microsecond=0)
    except OverflowError:
        raise RequestInvalid(f"to: must leave room for the {USUAL.days} days before it, or come with a from.") from None


def hour_of(time: datetime) -> datetime:
    """The beginning of its hour; `time` is in UTC."""
    return time.replace(minute=0, second=0, microsecond=0)


_LINE: dict[str, Any] = {
    "day": "2026-05-10",
    "submitted_by": "shop",
    "model": "z-image",
    "generations": 12,
    "open": 1,
    "reserved_credits": 12,
    "final_credits": 10,
}


class UsageLineOut(BaseModel):
    """The generations of one model that one token submitted on one day."""

    model_config = ConfigDict(json_schema_extra={"example": _LINE})

    day: str = Field(description="in UTC, of `tracking.first_seen_at`")
    submitted_by: str | None = Field(description="name of the token; null: not submitted through the receiver")
    model: str | None
    generations: int
    open: int = Field(description="how many have no outcome yet")
    reserved_credits: float
    final_credits: float


class UsageListOut(BaseModel):
    """Sums, by day, token name and model."""

    object: Literal["list"]
    from_time: str = Field(alias="from")
    to: str
    data: list[UsageLineOut]
