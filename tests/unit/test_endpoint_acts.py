"""What is done next follows from what is written down, whatever happened before."""

from datetime import timedelta
from typing import Any

import pytest

from app.endpoint.acts import Act, Endpoint, current, next_act
from app.endpoint.state import State
from tests.clock import NOON

HERE = "https://receiver.example.com"


def _endpoint(state: State, **members: Any) -> Endpoint:
    known: dict[str, Any] = {"id": state, "path_key": "key", "url": f"{HERE}/rivya/webhook/key", "rivya_id": "whend_1"}
    return Endpoint(state=state, created_at=NOON, **{**known, **members})


INTENDED = _endpoint(State.INTENDED)
ATTEMPTED = _endpoint(State.INTENDED, create_attempted_at=NOON)
SERVING = _endpoint(State.SERVING)
ELSEWHERE = _endpoint(State.SERVING, url="https://old.example.com/rivya/webhook/key")
RETIRING = _endpoint(State.RETIRING)
RETIRED = _endpoint(State.RETIRED)


@pytest.mark.parametrize(
    ("known", "act"),
    [
        ([], Act.INTEND),
        ([RETIRED], Act.INTEND),
        ([RETIRING], Act.INTEND),
        ([INTENDED], Act.CREATE),
        ([INTENDED, ELSEWHERE], Act.CREATE),
        ([ATTEMPTED], Act.RECOVER),
        ([ATTEMPTED, ELSEWHERE, RETIRED], Act.RECOVER),
        ([ELSEWHERE], Act.MOVE),
        ([SERVING], Act.CHECK),
        ([SERVING, RETIRING], Act.CHECK),
    ],
)
def test_what_is_stored_decides(known: list[Endpoint], act: Act) -> None:
    assert next_act(known, public_url=HERE, checked_id=None) is act


def test_an_endpoint_that_was_checked_is_left_in_peace() -> None:
    assert next_act([SERVING, RETIRED], public_url=HERE, checked_id=SERVING.id) is Act.REST


def test_a_replaced_endpoint_is_removed_only_while_another_one_serves() -> None:
    assert next_act([SERVING, RETIRING], public_url=HERE, checked_id=SERVING.id) is Act.REMOVE
    assert next_act([RETIRING], public_url=HERE, checked_id=RETIRING.id) is Act.INTEND


def test_the_endpoint_to_show_is_the_serving_one_then_the_one_that_is_to_be() -> None:
    assert current([RETIRED, INTENDED, SERVING]) is SERVING
    assert current([RETIRED, INTENDED]) is INTENDED
    assert current([RETIRED]) is None


def test_a_repr_shows_no_path_key() -> None:
    shown = repr(_endpoint(State.SERVING, path_key="hush-hush", url=f"{HERE}/rivya/webhook/hush-hush"))
    assert "hush-hush" not in shown


def test_an_endpoint_is_refused_from_the_first_refusal_until_the_next_delivery_that_is_verified() -> None:
    earlier = NOON - timedelta(seconds=1)
    assert not SERVING.is_refused
    assert not _endpoint(State.SERVING, last_verified_at=NOON).is_refused
    assert _endpoint(State.SERVING, last_refused_at=NOON).is_refused
    assert _endpoint(State.SERVING, last_refused_at=NOON, last_verified_at=earlier).is_refused
    assert not _endpoint(State.SERVING, last_refused_at=earlier, last_verified_at=NOON).is_refused
