"""What is done next follows from what is written down, whatever happened before."""

from datetime import timedelta
from typing import Any

import pytest

from app.endpoint.models import CONTRADICTIONS, PROOF_PATIENCE, Endpoint, State, Step, current, next_step, pinned_scheme
from app.endpoint.models import RETIRING as A_DAY
from tests.support.clock import NOON

HERE = "https://receiver.example.com"
SECOND = timedelta(seconds=1)


def _endpoint(state: State, **members: Any) -> Endpoint:
    known: dict[str, Any] = {"id": state, "path_key": "key", "url": f"{HERE}/rivya/webhook/key", "rivya_id": "whend_1"}
    proven: dict[str, Any] = {"secret_since": NOON, "secret_proven_at": NOON} if state != State.CREATED else {}
    return Endpoint(state=state, created_at=NOON, **{**known, **proven, **members})


INTENDED = _endpoint(State.INTENDED)
ATTEMPTED = _endpoint(State.INTENDED, create_attempted_at=NOON)
CREATED = _endpoint(State.CREATED, secret_since=NOON)
ASKED = _endpoint(State.CREATED, secret_since=NOON, test_asked_at=NOON)
PROVEN = _endpoint(State.PROVEN)
SERVING = _endpoint(State.SERVING)
SECRETLESS = _endpoint(State.SERVING, secret_since=None, secret_proven_at=None)
WANTED = _endpoint(State.SERVING, rotation_requested_at=NOON)
IN_DOUBT = _endpoint(State.SERVING, rotation_attempted_at=NOON)
UNPROVEN = _endpoint(State.SERVING, secret_proven_at=None)
ELSEWHERE = _endpoint(State.SERVING, url="https://old.example.com/rivya/webhook/key")
RETIRING = _endpoint(State.RETIRING, state_since=NOON)
RETIRED = _endpoint(State.RETIRED)
MANUAL = _endpoint(State.MANUAL)


def _next(*known: Endpoint, is_check_due: bool = False, **options: Any) -> Step:
    now = options.pop("now", NOON)
    return next_step(known, now=now, public_url=HERE, is_check_due=is_check_due, **options)


@pytest.mark.parametrize(
    ("known", "step"),
    [
        ([], Step.DECLARE),
        ([RETIRED], Step.DECLARE),
        ([RETIRING], Step.DECLARE),
        ([MANUAL], Step.DECLARE),
        ([INTENDED], Step.CREATE),
        ([INTENDED, ELSEWHERE], Step.CREATE),
        ([ATTEMPTED], Step.RECOVER),
        ([ATTEMPTED, ELSEWHERE, RETIRED], Step.RECOVER),
        ([SECRETLESS], Step.ROTATE),
        ([WANTED], Step.ROTATE),
        ([IN_DOUBT], Step.ROTATE),
        ([PROVEN, RETIRING], Step.SERVE),
        ([ELSEWHERE], Step.RELOCATE),
        ([CREATED], Step.REQUEST_TEST),
        ([UNPROVEN], Step.REQUEST_TEST),
        ([SERVING], Step.CHECK),
        ([SERVING, RETIRING], Step.CHECK),
    ],
)
def test_what_is_stored_decides(known: list[Endpoint], step: Step) -> None:
    assert _next(*known, is_check_due=True) is step


def test_an_endpoint_that_was_checked_is_left_in_peace() -> None:
    assert _next(SERVING, RETIRED) is Step.IDLE
    assert _next(ASKED) is Step.IDLE


def test_a_replaced_endpoint_is_removed_once_the_new_one_has_delivered_or_a_day_has_passed() -> None:
    assert _next(SERVING, RETIRING) is Step.REMOVE
    assert _next(ASKED, RETIRING, now=NOON + A_DAY - SECOND) is Step.IDLE
    assert _next(ASKED, RETIRING, now=NOON + A_DAY) is Step.REMOVE
    assert _next(ASKED, _endpoint(State.RETIRING), now=NOON + A_DAY) is Step.REMOVE


def test_a_secret_is_replaced_when_it_is_as_old_as_it_may_become() -> None:
    month = timedelta(days=30)
    assert _next(SERVING, rotate_every=month, now=NOON + month - SECOND) is Step.IDLE
    assert _next(SERVING, rotate_every=month, now=NOON + month) is Step.ROTATE


def test_the_endpoint_to_show_is_the_live_one_then_the_one_that_is_to_be() -> None:
    assert current([RETIRED, INTENDED, SERVING]) is SERVING
    assert current([RETIRED, INTENDED]) is INTENDED
    assert current([RETIRED, MANUAL]) is MANUAL
    assert current([RETIRED]) is None


def test_a_repr_shows_no_path_key() -> None:
    shown = repr(_endpoint(State.SERVING, path_key="hush-hush", url=f"{HERE}/rivya/webhook/hush-hush"))
    assert "hush-hush" not in shown


def test_an_endpoint_is_refused_from_the_first_refusal_until_the_next_delivery_that_is_verified() -> None:
    earlier = NOON - SECOND
    assert not SERVING.is_refused
    assert not _endpoint(State.SERVING, last_verified_at=NOON).is_refused
    assert _endpoint(State.SERVING, last_refused_at=NOON).is_refused
    assert _endpoint(State.SERVING, last_refused_at=NOON, last_verified_at=earlier).is_refused
    assert not _endpoint(State.SERVING, last_refused_at=earlier, last_verified_at=NOON).is_refused


def test_a_test_delivery_is_awaited_for_half_a_minute() -> None:
    assert not CREATED.is_awaiting_proof(NOON)
    assert ASKED.is_awaiting_proof(NOON + PROOF_PATIENCE - SECOND)
    assert not ASKED.is_awaiting_proof(NOON + PROOF_PATIENCE)
    assert not _endpoint(State.SERVING, test_asked_at=NOON).is_awaiting_proof(NOON)


def test_callbacks_are_counted_on_while_nothing_is_known_against_them() -> None:
    assert SERVING.callbacks_expected(NOON)
    assert CREATED.callbacks_expected(NOON)
    assert ASKED.callbacks_expected(NOON)
    assert not ASKED.callbacks_expected(NOON + PROOF_PATIENCE)
    assert not _endpoint(State.SERVING, last_refused_at=NOON).callbacks_expected(NOON)
    assert not INTENDED.callbacks_expected(NOON)


def test_a_secret_is_in_doubt_from_the_call_that_makes_it_until_it_is_stored() -> None:
    assert ATTEMPTED.is_in_doubt
    assert IN_DOUBT.is_in_doubt
    assert not any(known.is_in_doubt for known in (INTENDED, SERVING, WANTED))


def test_one_odd_delivery_contradicts_nothing() -> None:
    assert not _endpoint(State.SERVING, other_scheme_count=CONTRADICTIONS - 1).is_contradicted
    assert _endpoint(State.SERVING, other_scheme_count=CONTRADICTIONS).is_contradicted


def test_the_scheme_is_that_of_the_newest_endpoint_that_has_one() -> None:
    old, new = _endpoint(State.RETIRED, id="1", scheme="old"), _endpoint(State.SERVING, id="2", scheme="new")
    newest = _endpoint(State.CREATED, id="3")
    assert pinned_scheme([old, new, newest]) == "new"
    assert pinned_scheme([newest]) is None
