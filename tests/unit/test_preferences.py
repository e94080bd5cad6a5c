"""How long to wait: the query first, then RFC 7240's preference, capped, and odd ones ignored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.generations import Wait, requested_wait


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (["wait=10"], 10),
        (["WAIT=10"], 10),
        (["respond-async, wait=10"], 10),
        (["wait=10; note=x"], 10),
        (['wait="10"'], 10),
        (["wait = 10"], 10),
        (["respond-async", "wait=10"], 10),
        (["wait=10, wait=20"], 10),
        (["wait=0"], 0),
        (["wait=56"], 55),
        (["wait=999999999"], 55),
    ],
)
def test_a_preference_is_understood(prefer: list[str], seconds: int) -> None:
    assert requested_wait(None, prefer, max_seconds=55) == Wait(seconds, applied=f"wait={seconds}")


@pytest.mark.parametrize("prefer", ["", "wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "await=5", "wait=٣"])
def test_an_odd_preference_is_ignored(prefer: str) -> None:
    assert requested_wait(None, [prefer], max_seconds=55) == Wait(0)


def test_the_query_wins() -> None:
    assert requested_wait(2.5, ["wait=10"], max_seconds=55) == Wait(2.5)
    assert requested_wait(60, [], max_seconds=55) == Wait(55)


@given(st.lists(st.text(max_size=40), max_size=4))
def test_no_header_makes_anybody_wait_longer_than_the_limit(prefer: list[str]) -> None:
    assert 0 <= requested_wait(None, prefer, max_seconds=55).seconds <= 55
