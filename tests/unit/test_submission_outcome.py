"""What an attempt means: every answer and every error of Rivya's, for a first attempt and for one in doubt."""

import orjson
import pytest

from app.ledger.models import Generation, Status, Tracking
from app.rivya.errors import (
    RivyaError,
    RivyaForbidden,
    RivyaNotFound,
    RivyaRateLimited,
    RivyaRefused,
    RivyaUnauthorized,
    RivyaUnavailable,
    RivyaUnreadable,
)
from app.submission.models import State
from app.submission.outcome import Accepted, Attempt, NotRecorded, Outcome, Result, classify
from tests.support.clock import NOON

BODY = b'{"id": "task_1", "status": "queued"}'
RECORDED = Generation(id="task_1", status=Status.QUEUED, first_seen_at=NOON, tracking=Tracking.WATCHING)

TIME_OUT = RivyaUnavailable("no whole answer within 30 s", sent=True)
NEVER_SENT = RivyaUnavailable("the exchange failed: ConnectError", sent=False)
PROXY_502 = RivyaUnavailable("Rivya answered 502 without an error of its own", sent=True, status=502)
RIVYA_503 = RivyaUnavailable(
    "Rivya answered 503 public_api_disabled",
    sent=True,
    status=503,
    message="closed for repairs",
    code="public_api_disabled",
    request_id="req_5",
    retry_after=7.2,
)
REDIRECT = RivyaUnavailable("Rivya answered 302 moved", sent=True, status=302, code="moved")
GARBAGE = RivyaUnreadable("the answer (200) is unreadable: not JSON", status=200)
INVALID = RivyaRefused(400, "validation_failed", "prompt is too long", request_id="req_4")
BUSY = RivyaRateLimited(429, "rate_limited", "slow down", request_id="req_9", retry_after=2.5)
BAD_KEY = RivyaUnauthorized(401, "api_key_expired", "expired")
NO_SCOPE = RivyaForbidden(403, "api_scope_denied", "generations:create")
GONE = RivyaNotFound(404, "not_found", "no such model")
NO_CREDITS = RivyaRefused(402, "insufficient_credits", "top up")
SEE_OTHER = RivyaUnavailable("Rivya answered 303 without an error of its own", sent=True, status=303)
CONFLICT = RivyaRefused(409, "idempotency_conflict", "another body")


def outcome_of(attempt: Attempt, *, in_doubt: bool = False) -> Outcome:
    return classify(attempt, key="key-1", request_id="req_ours", in_doubt=in_doubt)


def error_of(outcome: Outcome) -> dict[str, object]:
    error: dict[str, object] = orjson.loads(outcome.reply.body)["error"]
    return error


@pytest.mark.parametrize("in_doubt", [False, True])
def test_an_acceptance_is_final_and_answered_with_our_record(in_doubt: bool) -> None:
    outcome = outcome_of(Accepted(201, "task_1", BODY, RECORDED), in_doubt=in_doubt)
    assert (outcome.state, outcome.is_final, outcome.generation_id) == (State.ACCEPTED, True, "task_1")
    assert outcome.reply.status == 201
    assert orjson.loads(outcome.reply.body)["tracking"]["state"] == "watching"


def test_without_a_record_to_show_rivyas_own_bytes_are_the_answer() -> None:
    assert outcome_of(Accepted(201, "task_1", BODY, None)).reply.body == BODY


@pytest.mark.parametrize("in_doubt", [False, True])
def test_an_acceptance_that_could_not_be_recorded_stays_open(in_doubt: bool) -> None:
    outcome = outcome_of(NotRecorded("DatabaseUnavailable"), in_doubt=in_doubt)
    assert (outcome.state, outcome.is_final, outcome.result) == (State.UNKNOWN, False, Result.NOT_RECORDED)
    assert (outcome.reply.status, error_of(outcome)["code"]) == (503, "not_recorded")
    assert "key-1" in str(error_of(outcome)["message"])


@pytest.mark.parametrize("error", [INVALID, GONE, CONFLICT])
def test_a_refusal_of_a_first_attempt_is_final_and_passed_on(error: RivyaRefused) -> None:
    outcome = outcome_of(error)
    assert (outcome.state, outcome.is_final, outcome.result) == (State.REJECTED, True, Result.REJECTED)
    assert outcome.reply.status == error.status
    assert error_of(outcome)["code"] == error.code
    assert error_of(outcome)["message"] == error.message
    assert error_of(outcome)["requestId"] == (error.request_id or "req_ours")


@pytest.mark.parametrize("error", [INVALID, GONE])
def test_a_refusal_of_the_request_itself_settles_a_doubt(error: RivyaRefused) -> None:
    outcome = outcome_of(error, in_doubt=True)
    assert (outcome.state, outcome.is_final) == (State.REJECTED, True)


@pytest.mark.parametrize(
    "error", [BAD_KEY, NO_SCOPE, NO_CREDITS, CONFLICT, BUSY, RIVYA_503, NEVER_SENT, REDIRECT, GARBAGE]
)
def test_what_says_nothing_of_an_earlier_attempt_leaves_the_doubt(error: RivyaError) -> None:
    outcome = outcome_of(error, in_doubt=True)
    assert (outcome.state, outcome.is_final) == (State.UNKNOWN, False)
    assert outcome.retry_after == error.retry_after


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_made_nothing_and_names_the_setting(status: int) -> None:
    outcome = outcome_of(RivyaUnavailable("Rivya answered 308 moved", sent=True, status=status))
    assert (outcome.state, outcome.is_final, outcome.result) == (State.REJECTED, False, Result.RETRYABLE)
    assert (outcome.reply.status, error_of(outcome)["code"]) == (502, "rivya_redirected")
    assert "RIVYA_BASE_URL" in str(error_of(outcome)["message"])


@pytest.mark.parametrize("error", [BAD_KEY, NO_SCOPE, NO_CREDITS])
def test_a_refusal_of_the_key_that_we_call_with_is_passed_on_and_not_final(error: RivyaRefused) -> None:
    outcome = outcome_of(error)
    assert (outcome.state, outcome.is_final) == (State.REJECTED, False)
    assert (outcome.reply.status, error_of(outcome)["code"]) == (error.status, error.code)


def test_a_rate_limit_is_passed_on_and_not_final() -> None:
    outcome = outcome_of(BUSY)
    assert (outcome.state, outcome.is_final, outcome.result) == (State.REJECTED, False, Result.RETRYABLE)
    assert (outcome.reply.status, outcome.reply.retry_after) == (429, 3)


@pytest.mark.parametrize("status", [400, 404, 413, 451])
def test_a_4xx_in_nobodys_words_is_passed_on_and_not_final(status: int) -> None:
    """From something in front of Rivya, say: nothing was made, and it may be put right."""
    outcome = outcome_of(RivyaUnavailable(f"Rivya answered {status}", sent=True, status=status))
    assert (outcome.state, outcome.is_final, outcome.result) == (State.REJECTED, False, Result.RETRYABLE)
    assert (outcome.reply.status, error_of(outcome)["code"]) == (status, "rivya_refused")


@pytest.mark.parametrize("status", [408, 425])
def test_a_4xx_that_speaks_of_a_time_out_leaves_a_doubt(status: int) -> None:
    outcome = outcome_of(RivyaUnavailable(f"Rivya answered {status}", sent=True, status=status))
    assert outcome.state is State.UNKNOWN


def test_a_failure_in_rivyas_words_is_passed_on_and_not_final() -> None:
    outcome = outcome_of(RIVYA_503)
    assert (outcome.state, outcome.is_final, outcome.result) == (State.REJECTED, False, Result.RETRYABLE)
    assert (outcome.reply.status, outcome.reply.retry_after) == (503, 8)
    assert (error_of(outcome)["code"], error_of(outcome)["requestId"]) == ("public_api_disabled", "req_5")
    assert error_of(outcome)["message"] == "closed for repairs"


def test_what_was_never_sent_can_be_sent_again() -> None:
    outcome = outcome_of(NEVER_SENT)
    assert (outcome.state, outcome.is_final, outcome.result) == (State.REJECTED, False, Result.UNREACHABLE)
    assert (outcome.reply.status, error_of(outcome)["code"]) == (503, "rivya_unreachable")
    assert outcome.reply.retry_after is not None


@pytest.mark.parametrize("error", [TIME_OUT, PROXY_502, SEE_OTHER, GARBAGE])
def test_what_was_sent_without_a_usable_answer_is_unknown(error: RivyaError) -> None:
    outcome = outcome_of(error)
    assert (outcome.state, outcome.is_final, outcome.result) == (State.UNKNOWN, False, Result.UNKNOWN)
    assert (outcome.reply.status, error_of(outcome)["code"]) == (504, "submission_unknown")
    assert "key-1" in str(error_of(outcome)["message"])


def test_a_failure_in_rivyas_words_without_a_name_is_named_by_us() -> None:
    unnamed = RivyaUnavailable("Rivya answered 500 internal_error", sent=True, status=500, code="internal_error")
    assert error_of(outcome_of(unnamed))["requestId"] == "req_ours"
