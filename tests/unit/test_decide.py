"""What one report does to one generation."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from app.core.models import Claim
from app.ledger.decide import Decision, decide
from app.ledger.models import Generation, Outcome, Report, Source, Status, Tracking, is_visible
from tests.support.clock import NOON
from tests.support.ledger_harness import GRACE, first_poll
from tests.support.reports import poll, status_claim, submit, webhook

LATER = NOON + timedelta(seconds=30)


def after(*reports: Report) -> Decision:
    current: Generation | None = None
    decision: Decision | None = None
    for report in reports:
        assert report.claim is not None
        decision = decide(current, report, report.claim, first_poll=first_poll)
        current = decision.generation
    assert decision is not None
    return decision


def test_a_submitted_generation_is_watched_and_first_polled_after_its_grace() -> None:
    generation = after(submit("g")).generation
    assert generation.tracking is Tracking.WATCHING
    assert generation.next_poll_at == NOON + GRACE
    assert generation.client_request_id == "order-1"


def test_a_terminal_report_settles_and_ends_polling() -> None:
    decision = after(submit("g"), webhook("g", "succeeded", at=LATER))
    generation = decision.generation
    assert generation.tracking is Tracking.SETTLED
    assert (generation.settled_at, generation.settled_by) == (LATER, Source.WEBHOOK)
    assert generation.next_poll_at is None
    assert decision.transition is not None
    assert (decision.transition.number, decision.transition.from_status) == (2, Status.QUEUED)


def test_a_callback_that_overtakes_the_create_response_is_the_generations_first_word() -> None:
    decision = after(webhook("g", "succeeded"), submit("g", at=LATER))
    assert decision.outcome is Outcome.STALE
    assert decision.transition is None
    assert decision.generation.status is Status.SUCCEEDED
    assert decision.generation.client_request_id == "order-1", "whose it is, is learnt all the same"


def test_a_contradicting_report_changes_nothing_but_is_told_apart() -> None:
    decision = after(webhook("g", "succeeded"), webhook("g", "failed", at=LATER))
    assert decision.outcome is Outcome.CONFLICT
    assert decision.generation.status is Status.SUCCEEDED
    assert decision.generation.settled_at == NOON


def test_a_poll_counts_and_takes_the_pollers_next_time() -> None:
    generation = after(submit("g"), poll("g", "queued", at=LATER)).generation
    assert generation.polls == 1
    assert generation.next_poll_at == LATER + timedelta(seconds=15)


def test_a_poll_of_a_stalled_generation_leaves_it_stalled() -> None:
    report = poll("g", "processing", at=LATER)
    assert report.next_poll is not None
    stalled = replace(report, next_poll=replace(report.next_poll, tracking=Tracking.STALLED))
    assert after(submit("g"), stalled).generation.tracking is Tracking.STALLED


def test_a_stalled_generation_still_takes_its_late_outcome() -> None:
    known = replace(after(submit("g")).generation, tracking=Tracking.STALLED)
    report = webhook("g", "failed", at=LATER)
    assert report.claim is not None
    assert decide(known, report, report.claim, first_poll=first_poll).generation.tracking is Tracking.SETTLED


def test_a_lost_generation_that_somebody_hears_of_again_is_watched_again() -> None:
    lost = replace(after(submit("g")).generation, tracking=Tracking.LOST, next_poll_at=None)
    report = submit("g", at=LATER)
    assert report.claim is not None
    generation = decide(lost, report, report.claim, first_poll=first_poll).generation
    assert (generation.tracking, generation.next_poll_at) == (Tracking.WATCHING, LATER + GRACE)


def test_the_same_status_again_fills_what_was_left_open_and_replaces_nothing() -> None:
    first = replace(webhook("g", "succeeded"), claim=status_claim("g", "succeeded", result=None, seed=1))
    again = replace(
        poll("g", "succeeded"), claim=status_claim("g", "succeeded", result={"urls": []}, seed=2, extra="new")
    )
    merged = after(first, again).generation.rivya_object
    assert (merged["result"], merged["seed"], merged["extra"]) == ({"urls": []}, 1, "new")


def test_a_newer_word_replaces_members_and_keeps_those_it_leaves_out() -> None:
    first = replace(submit("g"), claim=status_claim("g", "queued", note="kept", step=1))
    newer = replace(poll("g", "processing"), claim=status_claim("g", "processing", step=2))
    merged = after(first, newer).generation.rivya_object
    assert (merged["note"], merged["step"], merged["status"]) == ("kept", 2, "processing")


def test_an_older_word_adds_nothing_to_the_object() -> None:
    older = replace(submit("g"), claim=status_claim("g", "queued", eta=5))
    assert "eta" not in after(webhook("g", "succeeded"), older).generation.rivya_object


def test_tracking_attaches_metadata_and_never_moves_a_generation() -> None:
    tracked = Report(
        source=Source.OPERATOR,
        reported_at=LATER,
        claim=Claim("g", Status.QUEUED, model="z-image"),
        metadata={"order": 7},
    )
    decision = after(webhook("g", "succeeded"), tracked)
    assert decision.outcome is Outcome.STALE
    assert decision.generation.metadata == {"order": 7}
    assert decision.generation.model == "z-image"
    assert decision.generation.status is Status.SUCCEEDED


def test_who_speaks_second_of_an_open_generation_does_not_put_its_first_poll_off() -> None:
    generation = after(submit("g"), webhook("g", "processing", at=LATER)).generation
    assert generation.next_poll_at == NOON + GRACE


def test_the_model_that_was_heard_first_stands_until_rivya_itself_says_another() -> None:
    known = replace(submit("g"), claim=replace(status_claim("g", "queued"), model="z-image"))
    tracked = Report(source=Source.OPERATOR, reported_at=LATER, claim=Claim("g", Status.QUEUED, model="guessed"))
    assert after(known, tracked).generation.model == "z-image"


def test_who_submitted_it_is_learnt_once_also_after_its_callback() -> None:
    by_shop, by_other = (replace(submit("g", at=LATER), token=name) for name in ("shop", "other"))
    assert after(webhook("g", "succeeded"), by_shop, by_other, submit("g")).generation.submitted_by == "shop"
    assert after(webhook("g", "succeeded"), poll("g", "succeeded")).generation.submitted_by is None


def tracked(token: str | None, **members: Any) -> Report:
    """A PUT of the generation `g` by this token."""
    return Report(source=Source.OPERATOR, reported_at=LATER, claim=status_claim("g", "queued"), token=token, **members)


def test_metadata_belongs_to_the_token_that_set_it_first_and_an_admin_may_replace_it() -> None:
    first = tracked("shop", metadata={"order": 1})
    others = after(first, tracked("blog", metadata={"order": 2})).generation
    assert (others.metadata, others.metadata_by) == ({"order": 1}, "shop")
    admins = after(first, tracked("root", metadata={"order": 3}, is_admin=True)).generation
    assert (admins.metadata, admins.metadata_by) == ({"order": 3}, "shop")
    assert [change["by"] for change in admins.metadata_changes or ()] == ["shop", "root"]
    assert after(first, first).generation.metadata_changes == after(first).generation.metadata_changes


def test_a_generation_is_of_the_token_that_submitted_it_else_of_the_first_that_tracked_it() -> None:
    assert after(tracked("shop"), tracked("blog")).generation.tracked_by == "shop"
    submitted = after(tracked("shop"), replace(submit("g"), token="blog"), tracked("third")).generation
    assert (submitted.submitted_by, submitted.tracked_by) == ("blog", "shop")
    assert after(tracked(None)).generation.tracked_by is None


def test_a_fenced_token_changes_nothing_of_a_generation_of_another() -> None:
    own = after(tracked("shop"), tracked("shop", is_fenced=True, metadata={"a": 1}))
    assert own.generation.metadata == {"a": 1}
    others = after(tracked("shop"), tracked("blog", is_fenced=True, metadata={"a": 1}))
    assert (others.outcome, others.changes, others.generation.metadata) == (Outcome.STALE, {}, None)


def test_a_report_with_the_stored_status_fills_what_is_missing_and_replaces_nothing() -> None:
    claim = replace(status_claim("g", "queued"), model="z-image", reserved_credits=4.0)
    filled = after(submit("g"), replace(tracked(None), claim=claim))
    assert (filled.generation.model, filled.generation.reserved_credits) == ("z-image", 4.0)
    other = replace(claim, model="other", reserved_credits=9.0)
    again = after(submit("g"), replace(tracked(None), claim=claim), replace(tracked(None), claim=other))
    assert (again.generation.model, again.generation.reserved_credits) == ("z-image", 4.0)


def test_a_fenced_caller_sees_what_its_token_submitted_or_tracked_and_others_see_all() -> None:
    submitted, followed = after(replace(submit("g"), token="shop")).generation, after(tracked("shop")).generation
    for generation in (submitted, followed):
        assert is_visible(generation, "shop")
        assert is_visible(generation, None)
        assert not is_visible(generation, "blog")
