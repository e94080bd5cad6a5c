"""What a whole batch does."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.ledger.decide import KnownEvent, Plan, concerned, plan, reused_id, reused_ids, usage_changes
from app.ledger.models import Delivery, Outcome, Report, Source
from app.rivya.payloads import usable_id
from tests.support.clock import NOON
from tests.support.ledger_harness import first_poll
from tests.support.reports import poll, submit, webhook

LATER = NOON + timedelta(minutes=1)


def test_the_same_event_twice_in_a_batch_is_one_delivery_with_two_attempts() -> None:
    planned = plan([webhook("g", "succeeded"), webhook("g", "succeeded")], {}, {}, first_poll=first_poll)
    assert [item.is_duplicate for item in planned.recorded] == [False, True]
    assert [row.attempts for row in planned.deliveries.values()] == [2]
    assert len(planned.transitions) == 1


def test_an_event_that_is_stored_already_changes_no_generation() -> None:
    report = webhook("g", "succeeded", event_id="evt_1")
    planned = plan(
        [report], {}, {"evt_1": KnownEvent(Outcome.APPLIED, "generation.succeeded", "g", None)}, first_poll=first_poll
    )
    assert planned.recorded[0].is_duplicate
    assert planned.generations == {}
    assert planned.transitions == []


def test_reports_on_one_generation_build_on_each_other() -> None:
    reports = [submit("g"), poll("g", "processing"), webhook("g", "succeeded")]
    planned = plan(reports, {}, {}, first_poll=first_poll)
    assert [transition.number for transition in planned.transitions] == [1, 2, 3]
    assert len(planned.generations) == 1


def test_a_delivery_that_claims_nothing_is_kept_as_what_it_is() -> None:
    delivery = Delivery(
        event_id="evt_t",
        event_type="webhook.test",
        endpoint_id=None,
        received_at=NOON,
        body=b"{}",
        headers={},
        stored_outcome=Outcome.TEST,
    )
    planned = plan([Report(source=Source.WEBHOOK, reported_at=NOON, delivery=delivery)], {}, {}, first_poll=first_poll)
    assert planned.recorded[0].outcome is Outcome.TEST
    assert planned.deliveries["evt_t"].outcome is Outcome.TEST
    assert planned.generations == {}


def test_a_poll_that_finds_the_outcome_first_is_a_missed_callback() -> None:
    planned = plan([submit("g"), poll("g", "succeeded"), webhook("g", "succeeded")], {}, {}, first_poll=first_poll)
    assert [item.missed_callback for item in planned.recorded] == [False, True, False]


def test_a_poll_after_a_callback_misses_nothing() -> None:
    planned = plan([webhook("g", "succeeded"), poll("g", "succeeded")], {}, {}, first_poll=first_poll)
    assert not any(item.missed_callback for item in planned.recorded)


def evidence(body: bytes, *, event_type: str | None = None) -> Report:
    delivery = Delivery(
        event_id="evt", event_type=event_type, endpoint_id=None, received_at=NOON, body=body, headers={},
        stored_outcome=Outcome.UNREADABLE,
    )  # fmt: skip
    return Report(source=Source.WEBHOOK, reported_at=NOON, delivery=delivery)


@pytest.mark.parametrize(
    ("first", "second", "is_duplicate"),
    [
        (
            webhook("g", "succeeded", event_id="evt"),
            webhook("g", "succeeded", event_id="evt", at=LATER),
            True,
        ),
        (webhook("g", "succeeded", event_id="evt"), webhook("g", "failed", event_id="evt"), False),
        (webhook("g", "succeeded", event_id="evt"), webhook("other", "succeeded", event_id="evt"), False),
        (webhook("g", "succeeded", event_id="evt"), evidence(b"?"), False),
        (evidence(b"?"), evidence(b"?"), True),
        (evidence(b"?"), evidence(b"!"), False),
        (evidence(b"?", event_type="webhook.test"), evidence(b"!", event_type="webhook.test"), True),
    ],
)
def test_an_id_that_comes_again_is_another_attempt_only_of_the_same_event(
    first: Report, second: Report, *, is_duplicate: bool
) -> None:
    planned = plan([first, second, second], {}, {}, first_poll=first_poll)
    assert [item.is_duplicate for item in planned.recorded] == [False, is_duplicate, True]
    assert second.delivery is not None
    other = reused_id(second.delivery)
    assert set(planned.deliveries) == ({"evt"} if is_duplicate else {"evt", other})
    stored = {key: KnownEvent(row.outcome, row.delivery.event_type, row.generation_id, row.delivery.body)
              for key, row in planned.deliveries.items()}  # fmt: skip
    assert reused_ids([first, second], stored) == ([] if is_duplicate else [other])
    again = plan([first, second], {}, stored, first_poll=first_poll)
    assert all(item.is_duplicate for item in again.recorded)
    assert [row.attempts for row in again.deliveries.values()] == ([2] if is_duplicate else [1, 1])


def usage_of(planned: Plan) -> list[tuple[Any, ...]]:
    return usage_changes((row.stored, row.generation) for row in planned.generations.values())


def test_usage_changes_by_what_changed_and_not_by_what_stayed() -> None:
    planned = plan([submit("g"), poll("g", "processing"), webhook("g", "succeeded")], {}, {}, first_poll=first_poll)
    assert usage_of(planned) == [(NOON, None, None, 1, 0, 0, 0)]
    opened = plan([submit("g")], {}, {}, first_poll=first_poll).generations["g"].generation
    polled = plan([poll("g", "queued")], {"g": opened}, {}, first_poll=first_poll)
    assert usage_of(polled) == []
    settled = plan([webhook("g", "succeeded")], {"g": opened}, {}, first_poll=first_poll)
    assert usage_of(settled) == [(NOON, None, None, 0, -1, 0, 0)]


def test_a_report_without_news_writes_nothing() -> None:
    opened = plan([submit("g")], {}, {}, first_poll=first_poll).generations["g"].generation
    assert plan([submit("g")], {"g": opened}, {}, first_poll=first_poll).generations == {}


@pytest.mark.parametrize("letter", ["e", "\U00020000"])
def test_the_key_of_a_reused_id_is_no_longer_than_an_id_may_be(letter: str) -> None:
    delivery = evidence(b"?").delivery
    assert delivery is not None
    long, other = (replace(delivery, event_id=letter * 299 + end) for end in "ab")
    assert usable_id(reused_id(long)) is not None
    assert reused_id(long) != reused_id(other)


def test_the_generations_and_events_of_reports_are_named() -> None:
    reports = [submit("g"), webhook("g", "succeeded", event_id="evt_1"), webhook("h", "failed", event_id="evt_2")]
    ids, events = concerned(reports)
    assert (set(ids), events) == ({"g", "h"}, ["evt_1", "evt_2"])


def test_a_delivery_that_is_only_to_be_kept_makes_no_generation() -> None:
    report = webhook("g", "succeeded")
    assert report.delivery is not None
    test_event = replace(report, delivery=replace(report.delivery, stored_outcome=Outcome.TEST))
    planned = plan([test_event], {}, {}, first_poll=first_poll)
    assert planned.recorded[0].outcome is Outcome.TEST
    assert planned.generations == {}
    assert len(planned.deliveries) == 1
