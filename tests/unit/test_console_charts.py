"""Charts of the console: what is where, what it says, and that nothing divides by nothing."""

from datetime import datetime, timedelta

import pytest

from app.console.charts import WINDOWS, Chart, Series, Window, stacked
from app.console.overview import charts
from app.ledger.metrics import DELIVERIES, REFUSALS, SETTLED, ActivitySum
from app.ledger.models import Source
from tests.support.clock import NOON

HOUR, DAY, WEEK = WINDOWS


def drawn(series: list[Series]) -> Chart:
    return stacked("name", "Title", series, window=HOUR, now=NOON, unit="things", nothing="Nothing.")


@pytest.mark.parametrize(
    ("window", "first"),
    [
        (HOUR, NOON - timedelta(minutes=59)),
        (DAY, NOON + timedelta(minutes=20) - timedelta(days=1)),
        (WEEK, NOON + timedelta(hours=2) - timedelta(days=7)),
    ],
)
def test_a_window_ends_with_the_part_of_now(window: Window, first: datetime) -> None:
    assert window.begins(NOON + timedelta(seconds=59)) == first


def test_bars_are_stacked_up_to_the_highest() -> None:
    below = Series("below", "series-1", {NOON: 1, NOON - timedelta(minutes=59): 2})
    chart = drawn([below, Series("above", "series-2", {NOON: 3})])
    assert chart.paths == [
        ("series-1", "M0 50.0h8v50.0h-8zM590 75.0h8v25.0h-8z"),
        ("series-2", "M590 0.0h8v75.0h-8z"),
    ]
    assert (chart.total, chart.highest, chart.width, len(chart.bars)) == (6, 4, 600, 60)
    assert chart.summary == "below 3, above 3"
    assert chart.bars[-1].words == "2026-05-10 12:00:00 UTC: below 1, above 3"
    assert chart.bars[1].words == "2026-05-10 11:02:00 UTC: nothing"
    assert chart.marks == ["11:01", "11:20", "11:40", "now, UTC"]


def test_a_chart_of_nothing_has_no_paths() -> None:
    chart = drawn([Series("none", "series-1", {})])
    assert chart.paths == [("series-1", "")]
    assert chart.total == chart.highest == 0


def test_sums_become_series_by_what_was_counted() -> None:
    webhook = SETTLED[Source.WEBHOOK]
    sums = [
        ActivitySum(NOON, webhook, (10, 1, 3, 6, 8)),
        ActivitySum(NOON + timedelta(minutes=1), webhook, (1, 1, 1, 1, 1)),
        ActivitySum(NOON, SETTLED[Source.SUBMIT], (2, 0, 0, 0, 0)),
        ActivitySum(NOON, DELIVERIES, (12, 0, 0, 0, 0)),
        ActivitySum(NOON, REFUSALS, (5, 0, 0, 0, 0)),
    ]
    outcomes, latency, deliveries, polls = charts(sums, DAY, NOON)
    assert outcomes.summary == "by webhook 11, by poll 0, otherwise 2"
    assert latency.summary == "within 1 s 2, within 10 s 2, within 1 min 3, within 10 min 2, later 2"
    assert latency.bars[-1].values == [2, 2, 3, 2, 2]
    assert deliveries.summary == "recorded 12, refused 5"
    assert polls.total == 0
