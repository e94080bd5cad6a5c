"""Ids of ours sort by the time they were made."""

from datetime import timedelta

from app.core.records import path_key, request_id, uuid7, uuid7_beginning
from tests.support.clock import NOON


def test_a_later_id_sorts_after_an_earlier_one() -> None:
    ids = [uuid7(NOON + timedelta(milliseconds=n)) for n in range(100)]
    assert sorted(ids) == ids
    assert {one.version for one in ids} == {7}


def test_ids_of_one_millisecond_differ() -> None:
    assert len({uuid7(NOON) for _ in range(1000)}) == 1000


def test_keys_and_request_ids_are_unguessable_and_fit_a_url() -> None:
    assert len({path_key() for _ in range(100)}) == 100
    assert path_key().replace("-", "").replace("_", "").isalnum()
    assert request_id().startswith("req_")


def test_all_ids_of_a_millisecond_begin_alike() -> None:
    assert str(uuid7(NOON)).startswith(uuid7_beginning(NOON))
    assert uuid7_beginning(NOON + timedelta(milliseconds=1)) > uuid7_beginning(NOON)
    assert uuid7_beginning(NOON - timedelta(days=365 * 100)) == "00000000-0000"
