"""What a whole batch does."""

from app.ledger.decide import plan
from app.ledger.models import Delivery, Outcome, Report, Source
from tests.support.clock import NOON
from tests.support.ledger_harness import first_poll
from tests.support.reports import poll, submit, webhook


def test_the_same_event_twice_in_a_batch_is_one_delivery_with_two_attempts() -> None:
    planned = plan([webhook("g", "succeeded"), webhook("g", "succeeded")], {}, {}, first_poll=first_poll)
    assert [item.is_duplicate for item in planned.recorded] == [False, True]
    assert [row.attempts for row in planned.deliveries.values()] == [2]
    assert len(planned.transitions) == 1


def test_an_event_that_is_stored_already_changes_no_generation() -> None:
    report = webhook("g", "succeeded", event_id="evt_1")
    planned = plan([report], {}, {"evt_1": Outcome.APPLIED}, first_poll=first_poll)
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
        kept_as=Outcome.TEST,
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
