"""A call is sent again only where that can't pay twice, and no longer than a caller would wait."""

from datetime import timedelta

import pytest

from app.gateway.upstream import MOST_ATTEMPTS, CallTimeouts, Failure, Kind, call_timeouts, pause_before_retry


def pause(failure: Failure, *, attempt: int = 1, is_repeatable: bool = True, chance: float = 0.5) -> float | None:
    return pause_before_retry(failure, attempt=attempt, is_repeatable=is_repeatable, chance=chance)


@pytest.mark.parametrize("status", [None, 429, 500, 502, 503, 504])
def test_a_repeatable_call_is_sent_again_after_no_answer_a_rate_limit_or_a_server_error(status: int | None) -> None:
    assert pause(Failure(status)) == pytest.approx(0.2)


@pytest.mark.parametrize("status", [200, 201, 400, 401, 402, 403, 404, 409, 413])
def test_an_answer_that_is_one_is_final(status: int) -> None:
    assert pause(Failure(status)) is None


@pytest.mark.parametrize("status", [None, 429, 500, 503])
def test_a_call_without_a_key_that_was_sent_is_never_sent_again(status: int | None) -> None:
    assert pause(Failure(status), is_repeatable=False) is None


def test_a_call_that_never_left_is_sent_again_with_or_without_a_key() -> None:
    assert pause(Failure(None, sent=False), is_repeatable=False) is not None


def test_pauses_double_and_are_spread() -> None:
    assert [pause(Failure(500), attempt=attempt, chance=0) for attempt in (1, 2)] == pytest.approx([0.1, 0.2])
    assert pause(Failure(500), chance=1) == pytest.approx(0.3)


def test_after_the_last_attempt_there_is_none() -> None:
    assert pause(Failure(500), attempt=MOST_ATTEMPTS) is None


@pytest.mark.parametrize(("asked", "waits"), [(0.0, 0.0), (3.0, 3.0), (5.0, 5.0), (5.1, None), (3600.0, None)])
def test_what_rivya_asks_to_wait_is_waited_or_handed_on(asked: float, waits: float | None) -> None:
    assert pause(Failure(429, retry_after=asked)) == waits


def test_each_kind_of_call_has_a_patience_of_its_own() -> None:
    given = call_timeouts(chat=timedelta(seconds=7), stream=timedelta(seconds=9))
    assert given[Kind.TURN] == CallTimeouts(answer=7, silence=7)
    assert given[Kind.STREAM] == CallTimeouts(answer=7, silence=9)
    assert given[Kind.UPLOAD].answer is None
    assert set(given) == set(Kind)
