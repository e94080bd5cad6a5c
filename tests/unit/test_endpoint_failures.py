"""Each failure of a call has a code to keep, a pause that fits it, and a sentence that helps."""

import pytest

from app.endpoint.errors import OutcomeUnknown, explain, is_definite, is_gone, read_failure
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

UNAUTHORIZED = RivyaUnauthorized(401, "api_key_revoked")
FORBIDDEN = RivyaForbidden(403, "api_scope_denied")
REJECTED = RivyaRefused(400, "webhook_url_rejected")
LIMITED = RivyaRateLimited(429, "rate_limited", retry_after=90)
DOWN = RivyaUnavailable("no answer", sent=False)
LOST = RivyaUnavailable("no answer", sent=True)
UNREADABLE = RivyaUnreadable("no JSON", status=200)


@pytest.mark.parametrize("error", [DOWN, LOST, UNREADABLE, OutcomeUnknown("list_incomplete")])
def test_what_may_pass_doubles_its_pause_up_to_a_minute(error: RivyaError | OutcomeUnknown) -> None:
    failure = read_failure(error)
    assert [failure.pause(n, jitter=0) for n in (1, 2, 3, 6, 7, 8, 5000)] == [1, 2, 4, 32, 60, 60, 60]


@pytest.mark.parametrize("error", [UNAUTHORIZED, FORBIDDEN, REJECTED, RivyaRefused(400, "validation_failed")])
def test_what_only_a_person_can_mend_is_tried_once_a_minute_from_the_first(error: RivyaError) -> None:
    assert read_failure(error).pause(1, jitter=0) == 60


def test_a_pause_that_rivya_asks_for_is_never_cut_short() -> None:
    assert read_failure(LIMITED).pause(1, jitter=-1) == 90


def test_jitter_spreads_by_a_fifth() -> None:
    assert [read_failure(DOWN).pause(4, jitter=jitter) for jitter in (-1, 1)] == pytest.approx([6.4, 9.6])


def test_a_create_is_known_to_have_made_nothing_only_after_a_clear_refusal_or_when_it_never_left() -> None:
    assert all(is_definite(error) for error in (DOWN, UNAUTHORIZED, FORBIDDEN, REJECTED, LIMITED))
    unclear = (LOST, UNREADABLE, RivyaRefused(409, "idempotency_conflict"), RivyaRefused(408, "timeout"))
    assert not any(is_definite(error) for error in unclear)


def test_an_endpoint_is_gone_only_when_rivya_says_so_in_its_own_words() -> None:
    assert is_gone(RivyaNotFound(404, "not_found"))
    assert not any(is_gone(error) for error in (RivyaNotFound(404, "no_such_route"), LOST, UNAUTHORIZED))


@pytest.mark.parametrize(
    ("code", "helps"),
    [
        ("api_key_expired", "RIVYA_API_KEY"),
        ("api_scope_denied", "webhooks:manage"),
        ("webhook_url_rejected", "RECEIVER_PUBLIC_URL"),
        ("a_code_of_tomorrow", "a_code_of_tomorrow"),
    ],
)
def test_the_sentence_names_the_code_and_what_to_mend(code: str, helps: str) -> None:
    assert helps in explain(code)
    assert code in explain(code)


@pytest.mark.parametrize("code", ["whsec_ABC", "a b", "", "x" * 65, "<script>"])
def test_a_code_that_looks_like_none_is_not_kept(code: str) -> None:
    assert read_failure(RivyaRefused(400, code)).code == "refused_400"


def test_a_failure_that_says_nothing_of_itself_counts_as_rivya_being_away() -> None:
    assert read_failure(RivyaError("of another kind")) == read_failure(DOWN)
