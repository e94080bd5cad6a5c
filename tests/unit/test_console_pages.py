"""What pages are made of, without a page: media of results, timelines, bodies, refusals, charts, files, forms."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from app.api.usage import Window
from app.console.deliveries import grouped, readable
from app.console.generations import Medium, media_of, request_of, timeline
from app.console.usage import NOBODY, UNKNOWN, as_csv, chart_of, model_of, sums_by, token_of
from app.console.webhooks import read_webhook
from app.ledger.models import Generation, Outcome, Source, Status, StoredDelivery, Tracking, Transition
from app.ledger.sql import UsageLine
from app.submission.models import State, Submission
from tests.support.clock import NOON


def generation(**members: Any) -> Generation:
    return Generation("g", Status.SUCCEEDED, NOON, Tracking.SETTLED, **members)


@pytest.mark.parametrize(
    ("url", "category", "kind"),
    [
        ("https://media.example/a.PNG", None, "image"),
        ("https://media.example/a.mp4?signature=x", "image", "video"),
        ("https://media.example/a.mp3", None, "audio"),
        ("https://media.example/a", "video", "video"),
        ("https://media.example/a.bin", None, "file"),
        ("https://media.example/a.bin", "chat", "file"),
        ("http://media.example/a.png", "image", "file"),
    ],
)
def test_a_result_is_shown_by_its_ending_else_by_the_category_of_its_model(
    url: str, category: str | None, kind: str
) -> None:
    shown = generation(rivya_object={"result": {"primary_url": url, "urls": [url, url]}})
    assert media_of(shown, category) == [Medium(url, kind)]


@pytest.mark.parametrize(
    "result",
    [None, "https://a.example/a.png", [], {}, {"urls": "https://a.example"}, {"primary_url": 7, "urls": [None, "x:y"]}]
    + [
        {"primary_url": url}
        for url in ("javascript:alert(1)", "data:text/html,x", "https://", "//a.example", "http://[")
    ],
)
def test_nothing_but_web_urls_is_a_result(result: object) -> None:
    assert media_of(generation(rivya_object={"result": result}), "image") == []


def transition(number: int, to: Status, *, at: datetime, event_id: str | None = None) -> Transition:
    return Transition(
        generation_id="g",
        number=number,
        from_status=None if number == 1 else Status.QUEUED,
        to_status=to,
        source=Source.WEBHOOK,
        event_id=event_id,
        occurred_at=at,
        recorded_at=at,
    )


def delivery(event_id: str, *, at: datetime, attempts: int = 1) -> StoredDelivery:
    return StoredDelivery(
        event_id=event_id,
        event_type=None,
        generation_id="g",
        endpoint_id=None,
        received_at=at,
        outcome=Outcome.STALE,
        attempts=attempts,
    )


def submission(request: bytes = b"{}") -> Submission:
    return Submission(
        id="s",
        key="k",
        request_hash="",
        request=request,
        submitted_by="shop",
        callback_url=None,
        traceparent=None,
        state=State.ACCEPTED,
        is_final=True,
        attempts=2,
        retries=0,
        sent_at=NOON,
        generation_id="g",
        reply=None,
        is_emptied=False,
    )


def test_a_timeline_begins_with_the_create_and_has_each_delivery_once() -> None:
    later = NOON + timedelta(seconds=9)
    changed = {"by": "ops", "at": (later + timedelta(seconds=2)).isoformat()}
    entries = timeline(
        generation(metadata_changes=[changed]),
        [transition(1, Status.QUEUED, at=NOON), transition(2, Status.SUCCEEDED, at=later, event_id="evt_1")],
        [delivery("evt_1", at=later), delivery("evt_2", at=later + timedelta(seconds=1), attempts=3)],
        submission(),
    )
    assert [(entry.title, entry.event_id, entry.detail) for entry in entries] == [
        ("Create sent to Rivya", None, "attempt 2"),
        ("First known: queued", None, None),
        ("queued to succeeded", "evt_1", None),
        ("Delivery that changed nothing", "evt_2", "came 3 times"),
        ("Metadata changed", None, None),
    ]


def test_what_was_asked_for_is_an_object_or_not_known() -> None:
    assert request_of(submission(b'{"prompt": "a fox"}')) == {"prompt": "a fox"}
    assert [request_of(each) for each in (None, submission(b""), submission(b"["), submission(b"[]"))] == [None] * 4


@pytest.mark.parametrize(
    ("body", "shown"),
    [(b'{"a":1}', ('{\n  "a": 1\n}', "JSON")), (b"words", ("words", "text")), (b"\xff\x00", ("ff 00", "bytes in hex"))],
)
def test_a_body_is_shown_as_what_it_is(body: bytes, shown: tuple[str, str]) -> None:
    assert readable(body) == shown


def test_refusals_are_grouped_the_largest_group_first() -> None:
    rows = [
        {"reason": reason, "rejected_at": NOON - timedelta(minutes=age), "remote_address": "203.0.113.9"}
        for age, reason in enumerate(["of_tomorrow", "no_secret", "no_secret"])
    ]
    first, second = grouped(rows)
    assert (first.reason, first.count, first.addresses) == ("no_secret", 2, 1)
    assert (first.first_at, first.last_at) == (NOON - timedelta(minutes=2), NOON - timedelta(minutes=1))
    assert (second.reason, second.remedy) == ("of_tomorrow", "see docs/operations.md")


def line(token: str | None, model: str | None = None, *, credits_used: float, day: int = 1) -> UsageLine:
    return UsageLine(
        day=date(2026, 5, day),
        submitted_by=token,
        model=model,
        generations=1,
        open=0,
        reserved_credits=credits_used,
        final_credits=credits_used,
    )


WEEK = Window(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 8, tzinfo=UTC))


def test_usage_is_summed_by_name_the_most_credits_first() -> None:
    lines = [line("shop", "a", credits_used=1), line("shop", None, credits_used=2), line(None, "a", credits_used=4)]
    assert [(each.name, each.final_credits) for each in sums_by(token_of, lines)] == [(NOBODY, 4), ("shop", 3)]
    assert [(each.name, each.final_credits) for each in sums_by(model_of, lines)] == [("a", 5), (UNKNOWN, 2)]


def test_a_chart_of_usage_has_a_bar_for_each_day_and_puts_the_smallest_names_together() -> None:
    lines = [line(f"token-{number}", credits_used=number, day=number) for number in range(1, 8)]
    chart = chart_of(token_of, lines, WEEK, title="Credits")
    assert len(chart.bars) == 7
    assert [series.label for series in chart.series] == ["token-7", "token-6", "token-5", "token-4", "3 others"]
    assert chart.total == 28
    assert [bar.begins.day for bar in chart.bars if sum(bar.values)] == list(range(1, 8))


@pytest.mark.parametrize("first", "=+-@\t\uff1d\uff0b\uff0d\uff20")
def test_a_file_of_usage_has_no_formula(first: str) -> None:
    row = as_csv([line(f"{first}a", f"{first}b", credits_used=1.5)]).splitlines()[1]
    assert row == f"2026-05-01,'{first}a,'{first}b,1,0,1.5,1.5"


def test_the_boxes_of_a_form_are_the_events_of_a_webhook() -> None:
    fields = {"url": "https://a.example", "type:generation.failed": "on", "name": " shop ", "model": "", "csrf": "x"}
    webhook = read_webhook(fields)
    assert (webhook.name, webhook.model, webhook.event_types) == ("shop", None, ["generation.failed"])
