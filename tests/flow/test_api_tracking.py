"""PUT /api/v1/generations/{id}: a generation made elsewhere is tracked, once, however often it is said."""

import asyncio
from dataclasses import replace
from urllib.parse import quote

import pytest

from app.ledger.tables import generations, transitions
from tests.support.api_harness import error_of, ids, open_api
from tests.support.reports import submit, webhook

PATH = "/api/v1/generations/"
DETAILS = {"model": "z-image", "client_request_id": "order-1", "metadata": {"customer": "c-42", "n": [1, None]}}


async def test_tracking_begins_as_queued_and_is_watched(database_url: str) -> None:
    async with open_api(database_url) as api:
        answer = await api.writer.put(f"{PATH}g", json=DETAILS)
        assert answer.status_code == 201
        generation = answer.json()
        assert (generation["model"], generation["metadata"]) == (DETAILS["model"], DETAILS["metadata"])
        assert generation["tracking"]["client_request_id"] == DETAILS["client_request_id"]
        assert (generation["status"], generation["tracking"]["state"]) == ("queued", "watching")
        assert generation["tracking"]["next_poll_at"] is not None
        assert (await api.client.get(f"{PATH}g")).json() == generation
        history = (await api.client.get(f"{PATH}g/transitions")).json()["data"]
        assert [(step["to"], step["source"]) for step in history] == [("queued", "operator")]


async def test_saying_it_again_changes_nothing(database_url: str) -> None:
    async with open_api(database_url) as api:
        first = await api.writer.put(f"{PATH}g", json=DETAILS)
        again = await api.writer.put(f"{PATH}g", json=DETAILS)
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == again.json()
        assert len(await api.room.rows(transitions)) == 1


async def test_many_at_once_make_one(database_url: str) -> None:
    async with open_api(database_url) as api:
        answers = await asyncio.gather(*(api.writer.put(f"{PATH}g", json=DETAILS) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
        assert len(await api.room.rows(generations)) == 1


async def test_what_is_left_out_stays_and_an_outcome_is_never_undone(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.writer.put(f"{PATH}g", json=DETAILS)
        await api.record(webhook("g", "succeeded"))
        answer = await api.writer.put(f"{PATH}g")
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["metadata"]) == ("succeeded", DETAILS["metadata"])


async def test_metadata_is_replaced_and_the_callers_id_is_not(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.writer.put(f"{PATH}g", json=DETAILS)
        answer = await api.writer.put(f"{PATH}g", json={"client_request_id": "order-2", "metadata": {"new": True}})
        assert answer.json()["metadata"] == {"new": True}
        assert answer.json()["tracking"]["client_request_id"] == "order-1"


@pytest.mark.parametrize("identity", ["task one", "ü", "a:b;c", "x" * 500, "🦜", "100%"])
async def test_any_printable_id_is_tracked_and_found(database_url: str, identity: str) -> None:
    async with open_api(database_url) as api:
        path = PATH + quote(identity, safe="")
        assert (await api.writer.put(path)).json()["id"] == identity
        assert (await api.client.get(path)).json()["id"] == identity
        assert ids(await api.client.get("/api/v1/generations")) == [identity]


@pytest.mark.parametrize("identity", ["x" * 501, "a%00b", "%20", "%7F", "%E2%80%AE"])
async def test_an_id_that_rivya_can_not_be_asked_for_is_refused(database_url: str, identity: str) -> None:
    async with open_api(database_url) as api:
        assert error_of(await api.writer.put(PATH + identity)) == (400, "validation_failed")
        assert await api.room.rows(generations) == []


DEEP = b'{"metadata":' + b'{"a":' * 250 + b"1" + b"}" * 251


@pytest.mark.parametrize(
    ("body", "begins"),
    [
        (b"[]", "body: "),
        (b"{", "body: "),
        (b'{"model":"\xff"}', "body: "),
        (b'{"metadata":{"a":"\\ud800"}}', "body: "),
        (b'{"metadata":' + b"[" * 5000, "body: "),
        (b'{"modle":"z-image"}', "modle: there is no such"),
        (b'{"model":7}', "model: "),
        (b'{"model":""}', "model: must be 1 to 200"),
        (b'{"client_request_id":""}', "client_request_id: "),
        (b'{"client_request_id":"a\\u0000"}', "client_request_id: must not contain NUL"),
        (b'{"client_request_id":"' + b"x" * 129 + b'"}', "client_request_id: "),
        (b'{"metadata":[]}', "metadata: "),
        (b'{"metadata":{"a":"\\u0000"}}', "metadata: must not contain NUL"),
        (DEEP, "metadata: must not contain NUL, nor nest"),
        (b'{"metadata":{"a":"' + b"x" * 16_384 + b'"}}', "metadata: must be at most 16384 bytes"),
    ],
)
async def test_a_body_that_can_not_be_used_is_refused_by_its_member(sqlite_url: str, body: bytes, begins: str) -> None:
    async with open_api(sqlite_url) as api:
        answer = await api.writer.put(f"{PATH}g", content=body)
        assert error_of(answer) == (400, "validation_failed")
        assert answer.json()["error"]["message"].startswith(begins)
        assert await api.room.rows(generations) == []


async def test_what_is_accepted_at_the_bounds_can_be_shown(database_url: str) -> None:
    async with open_api(database_url) as api:
        deep = b'{"metadata":' + b'{"a":' * 200 + b"1" + b"}" * 201
        assert (await api.writer.put(f"{PATH}deep", content=deep)).status_code == 201
        large = {"metadata": {"a": "x" * (16_384 - len('{"a":""}'))}}
        assert (await api.writer.put(f"{PATH}large", json=large)).status_code == 201
        assert len(ids(await api.client.get("/api/v1/generations"))) == 2


async def test_a_body_without_end_is_not_read_to_its_end(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        answer = await api.writer.put(f"{PATH}g", content=b" " * 70_000)
        assert error_of(answer) == (413, "payload_too_large")


async def test_who_tracks_it_and_who_first_attached_metadata_is_recorded(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.writer.put(f"{PATH}plain")
        await api.writer.put(f"{PATH}g", json=DETAILS)
        await api.room.ledger.record([replace(submit("g"), token="other", metadata={"more": 1})])
        names = {(row["id"], row["token"], row["metadata_by"]) for row in await api.room.rows(generations)}
        assert names == {("plain", "write", None), ("g", "write", "write")}


async def test_metadata_belongs_to_the_token_that_set_it_first_and_each_change_is_in_the_history(
    database_url: str,
) -> None:
    async with open_api(database_url) as api:
        await api.record(replace(submit("g"), token="shop"))
        other = replace(submit("g"), token="blog", metadata={"of": "blog"})
        assert (await api.writer.put(f"{PATH}g", json={"metadata": {"of": "write"}})).status_code == 200
        await api.record(other)
        await api.record(replace(submit("g"), token="write", metadata={"of": "write"}))  # changes nothing
        assert (await api.client.get(f"{PATH}g")).json()["metadata"] == {"of": "write"}
        assert (await api.admin.put(f"{PATH}g", json={"metadata": {"of": "admin"}})).status_code == 200
        assert (await api.writer.put(f"{PATH}g", json={"metadata": {"of": "write again"}})).status_code == 200
        changes = (await api.client.get(f"{PATH}g/transitions")).json()["metadata_changes"]
        assert [change["by"] for change in changes] == ["write", "admin", "write"]


async def test_metadata_of_another_token_is_refused_with_what_stays(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        await api.record(replace(submit("g"), token="shop", metadata={"of": "shop"}))
        answer = await api.writer.put(f"{PATH}g", json={"metadata": {}, "client_request_id": "mine"})
        assert error_of(answer) == (403, "api_scope_denied")
        assert answer.json()["metadata"] == {"of": "shop"}
        assert (await api.client.get(f"{PATH}g")).json()["tracking"]["client_request_id"] != "mine"
