"""A cursor leads back to its position with the filters it was made for, and nothing else is believed."""

import base64
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.parameters import CursorInvalid, decode, encode
from app.ledger.models import DeliveryFilter, GenerationFilter, Position, Status

ALL = GenerationFilter()
HERE = Position(datetime(2026, 5, 10, 12, 0, 0, 123456, tzinfo=UTC), "task_1")
times = st.datetimes(timezones=st.just(UTC))
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=200)


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def digest() -> str:
    text = encode(HERE, ALL)
    encoded: str = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))[0]
    return encoded


@given(times, texts)
def test_a_cursor_leads_back_to_its_position(at: datetime, key: str) -> None:
    assert decode(encode(Position(at, key), ALL), ALL) == Position(at, key)


@given(st.text(max_size=300))
def test_any_text_is_a_cursor_of_ours_or_refused(text: str) -> None:
    with pytest.raises(CursorInvalid):
        decode(text, ALL)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(st.characters(codec="utf-8")) | st.floats(),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=8,
    )
)
def test_any_json_is_refused(value: object) -> None:
    with pytest.raises(CursorInvalid):
        decode(base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("="), ALL)


@pytest.mark.parametrize(
    "parts",
    [
        (10**18, "id"),
        (-(10**18), "id"),
        (True, "id"),
        (1.5, "id"),
        ("1", "id"),
        (None, "id"),
        (0, ""),
        (0, "a\x00b"),
        (0, "x" * 501),
        (0, 7),
        (0, None),
        (0,),
        (0, "id", "more"),
    ],
)
def test_the_right_digest_makes_no_position_right(parts: tuple[object, ...]) -> None:
    with pytest.raises(CursorInvalid):
        decode(forged(digest(), *parts), ALL)


@pytest.mark.parametrize(
    "other",
    [
        GenerationFilter(status=Status.QUEUED),
        GenerationFilter(model="a"),
        GenerationFilter(client_request_id="a"),
        GenerationFilter(created_after=HERE.at),
        GenerationFilter(created_before=HERE.at),
        DeliveryFilter(),
    ],
)
def test_a_cursor_of_other_filters_is_refused(other: GenerationFilter | DeliveryFilter) -> None:
    with pytest.raises(CursorInvalid):
        decode(encode(HERE, ALL), other)


def test_a_cursor_says_nothing_that_a_url_has_to_quote() -> None:
    assert set(encode(Position(HERE.at, "ÿ~?" * 9), ALL)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


def test_the_zone_of_a_moment_does_not_matter() -> None:
    elsewhere = HERE.at.astimezone(timezone(timedelta(hours=5)))
    assert encode(Position(elsewhere, HERE.id), ALL) == encode(HERE, ALL)
