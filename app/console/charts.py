"""Stacked bars over time: where they are, how high, and what they say; `ui.chart` draws them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from app.console.filters import number, utc

HEIGHT: Final = 100
STEP: Final = 10
_WIDTH: Final = 8
"""Of a bar, in units of the drawing, which is stretched to the width that there is."""


@dataclass(frozen=True, slots=True)
class Window:
    """A length of time up to now, in equal parts."""

    name: str
    label: str
    step: timedelta
    bars: int
    cached: float
    """Seconds for which its sums are not read again."""
    prefix: int
    """Of the sums of `app.ledger.metrics` that it is made of."""
    mark: str
    """The format of the times below a chart."""

    def begins(self, now: datetime) -> datetime:
        """The beginning of the first part."""
        return self.part(now) - (self.bars - 1) * self.step

    def part(self, time: datetime) -> datetime:
        """The beginning of the part to which `time` belongs."""
        seconds = int(self.step.total_seconds())
        return datetime.fromtimestamp(int(time.timestamp()) // seconds * seconds, UTC)


WINDOWS: Final = (
    Window("hour", "Last hour", timedelta(minutes=1), 60, 2, 16, "%H:%M"),
    Window("day", "Last day", timedelta(minutes=20), 72, 10, 15, "%H:%M"),
    Window("week", "Last week", timedelta(hours=2), 84, 30, 13, "%b %d"),
)


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a chart."""

    label: str
    colour: str
    """A class of the stylesheet: `series-1` to `series-5`."""
    values: Mapping[datetime, float]
    """By the beginning of a part of the window; parts without a value have none."""

    @property
    def total(self) -> float:
        """The sum of all values."""
        return sum(self.values.values())


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of the window."""

    begins: datetime
    x: int
    values: Sequence[float]
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What `ui.chart` draws."""

    name: str
    title: str
    unit: str
    nothing: str
    """What to show while there is nothing to draw."""
    series: Sequence[Series]
    bars: Sequence[Bar]
    paths: Sequence[tuple[str, str]]
    """The colour of each series, and the outline of its parts of all bars."""
    marks: Sequence[str]
    highest: float
    width: int
    height: int = HEIGHT
    step: int = STEP

    @property
    def total(self) -> float:
        """The sum of all series."""
        return sum(series.total for series in self.series)

    @property
    def summary(self) -> str:
        """The chart in words."""
        return ", ".join(f"{series.label} {number(series.total)}" for series in self.series)


def stacked(
    name: str, title: str, series: Sequence[Series], *, window: Window, now: datetime, unit: str, nothing: str
) -> Chart:
    """A chart of these series over the window that ends now."""
    first = window.begins(now)
    times = [first + index * window.step for index in range(window.bars)]
    columns = [[each.values.get(time, 0) for each in series] for time in times]
    highest = max(map(sum, columns), default=0)
    bars = [
        Bar(time, index * STEP, column, f"{utc(time)}: {_words(column, series)}")
        for index, (time, column) in enumerate(zip(times, columns, strict=True))
    ]
    paths = [(each.colour, _path(columns, index, highest)) for index, each in enumerate(series)]
    marked = [times[index * (len(times) - 1) // 3] for index in range(4)]
    marks = [f"{time:{window.mark}}" for time in marked[:3]] + ["now, UTC"]
    return Chart(
        name=name,
        title=title,
        unit=unit,
        nothing=nothing,
        series=series,
        bars=bars,
        paths=paths,
        marks=marks,
        highest=highest,
        width=window.bars * STEP,
    )


def _words(column: Sequence[float], series: Sequence[Series]) -> str:
    """The values of one bar, for people."""
    values = [f"{each.label} {number(value)}" for value, each in zip(column, series, strict=True) if value]
    return ", ".join(values) or "nothing"


def _path(columns: Sequence[Sequence[float]], index: int, highest: float) -> str:
    """One rectangle for each bar that has this series, on top of the series before it."""
    return "".join(
        f"M{position * STEP} {HEIGHT - sum(column[: index + 1]) / highest * HEIGHT:.1f}h{_WIDTH}"
        f"v{column[index] / highest * HEIGHT:.1f}h-{_WIDTH}z"
        for position, column in enumerate(columns)
        if column[index]
    )
