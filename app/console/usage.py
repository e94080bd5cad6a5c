"""Usage: credits and generations by token, model and day, as a chart, as tables and as CSV."""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from app.api import usage
from app.api.parameters import UsageParameters
from app.console.charts import Chart, Series, Window, stacked
from app.console.pages import Console, parse_query
from app.core.auth import Caller, Role
from app.ledger.sql import UsageLine

MOST_SHOWN: Final = 500
_COLOURS: Final = ("series-1", "series-2", "series-3", "series-4", "series-5")
_DAY: Final = timedelta(days=1)
NOBODY: Final = "not through us"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSum:
    """The sum of all lines with the same name."""

    name: str
    generations: int
    open: int
    reserved_credits: float
    final_credits: float


def token_of(line: UsageLine) -> str:
    """The name of the token, or a word for none."""
    return line.submitted_by or NOBODY


def model_of(line: UsageLine) -> str:
    """The model, or a word for none."""
    return line.model or UNKNOWN


def sums_by(name_of: Callable[[UsageLine], str], lines: Sequence[UsageLine]) -> list[UsageSum]:
    """A sum for each name, the most credits first."""
    groups: defaultdict[str, list[UsageLine]] = defaultdict(list)
    for line in lines:
        groups[name_of(line)].append(line)
    sums = [
        UsageSum(
            name=name,
            generations=sum(line.generations for line in theirs),
            open=sum(line.open for line in theirs),
            reserved_credits=sum(line.reserved_credits for line in theirs),
            final_credits=sum(line.final_credits for line in theirs),
        )
        for name, theirs in groups.items()
    ]
    return sorted(sums, key=lambda each: (-each.final_credits, -each.generations, each.name))


def chart_of(
    name_of: Callable[[UsageLine], str], lines: Sequence[UsageLine], asked: usage.Window, *, title: str
) -> Chart:
    """Final credits by day: the four names with the most, and the others together."""
    last = asked.last_hour_ends - timedelta(microseconds=1)
    bars = (last.date() - asked.first.date()).days + 1
    window = Window("days", "Days", step=_DAY, bars=bars, cached=0, prefix=0, mark="%b %d")
    names = [each.name for each in sums_by(name_of, lines)]
    shown = names if len(names) <= len(_COLOURS) else names[: len(_COLOURS) - 1]
    values: dict[str, defaultdict[datetime, float]] = {name: defaultdict(float) for name in shown}
    others: defaultdict[datetime, float] = defaultdict(float)
    for line in lines:
        day = datetime(line.day.year, line.day.month, line.day.day, tzinfo=UTC)
        values.get(name_of(line), others)[day] += line.final_credits
    series = [Series(name, colour, values[name]) for name, colour in zip(shown, _COLOURS, strict=False)]
    if len(names) > len(shown):
        series.append(Series(f"{len(names) - len(shown)} others", _COLOURS[-1], others))
    nothing = "No generation of these days has cost anything."
    return stacked("credits", title, series, window=window, now=last, unit="credits", nothing=nothing)


def as_csv(lines: Sequence[UsageLine]) -> str:
    """The lines as CSV, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["day", "token", "model", "generations", "open", "reserved_credits", "final_credits"])
    for line in lines:
        names = (_plain(line.submitted_by or ""), _plain(line.model or ""))
        sums = (line.generations, line.open, line.reserved_credits, line.final_credits)
        writer.writerow([line.day.isoformat(), *names, *sums])
    return text.getvalue()


_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What begins a formula (OWASP, CSV Injection), the last four being the first four in full width."""


def _plain(value: str) -> str:
    """`value`, with an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{value}" if value.startswith(_FORMULA) else value


def router(console: Console) -> APIRouter:
    """The pages."""
    routes = console.router()

    async def read(request: Request, caller: Caller) -> tuple[usage.Window, list[UsageLine]]:
        parameters = parse_query(request, UsageParameters, by="token")
        return await usage.read_usage(console.queries, parameters, caller, now=console.clock.now())

    @routes.get("/usage")
    async def show_usage(request: Request, caller: Annotated[Caller, Depends(console.require(Role.READ))]) -> Response:
        """The chart and the tables."""
        asked, lines = await read(request, caller)
        is_by_model = request.query_params.get("by") == "model"
        name_of, title = (model_of, "Credits by model") if is_by_model else (token_of, "Credits by token")
        today = console.clock.now().date()
        return console.page(
            request,
            "usage.html",
            title="Usage",
            chart=chart_of(name_of, lines, asked, title=title),
            by="model" if is_by_model else "token",
            by_token=sums_by(token_of, lines),
            by_model=sums_by(model_of, lines),
            lines=sorted(lines, key=lambda line: (line.day, line.final_credits), reverse=True)[:MOST_SHOWN],
            line_count=len(lines),
            asked=asked,
            presets=[
                ("Today", {"from": today}),
                ("Yesterday", {"from": today - _DAY, "to": today}),
                ("7 days", {"from": today - 6 * _DAY}),
                ("30 days", {}),
            ],
        )

    @routes.get("/usage.csv")
    async def download(request: Request, caller: Annotated[Caller, Depends(console.require(Role.READ))]) -> Response:
        """All lines as a file."""
        asked, lines = await read(request, caller)
        name = f"usage-{asked.first:%Y-%m-%d}-{asked.end:%Y-%m-%d}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return Response(as_csv(lines), media_type="text/csv; charset=utf-8", headers=headers)

    return routes
