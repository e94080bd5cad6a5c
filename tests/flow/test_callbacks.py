"""Callbacks of one job: asked for with a create or a PUT, checked, never sent to Rivya, stored once per token."""

import pytest

from app.ledger.tables import callbacks
from app.rivya.schemes import parse_scheme
from app.rivya.signature import Verified, Verifier
from app.sandbox.faults import ApiFault
from app.submission.store import submissions
from tests.support.api_harness import open_api
from tests.support.reports import webhook
from tests.support.rows import table_rows
from tests.support.scripted_provider import Heard
from tests.support.submission_harness import (
    BODY,
    LEASE_SECONDS,
    SubmissionHarness,
    code_of,
    open_submission,
    serve_manually,
)
from tests.support.webhooks_harness import Programs, programs

URL = "https://shop.example.com/done?job=1"
PATH = "/api/v1/generations/g"


async def stored(room: SubmissionHarness) -> list[tuple[str, str, str]]:
    return [(row["generation_id"], row["token"], row["url"]) for row in await room.room.rows(callbacks)]


async def test_a_callback_is_stored_with_the_generation_and_not_sent_to_rivya(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        answer = await room.create(callback=URL)
        assert await stored(room) == [(answer.json()["id"], "shop", URL)]
        submission = await room.submission()
        assert (submission["callback_url"], submission["request"]) == (URL, BODY)
        assert URL not in str(room.sandbox.calls.recent)


async def test_a_create_without_a_callback_stores_none(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        await room.create()
        assert await stored(room) == []


async def test_the_callback_is_part_of_what_the_idempotency_key_compares(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        first, again = await room.create(callback=URL), await room.create(callback=URL)
        assert (again.content, again.headers["Idempotency-Replayed"]) == (first.content, "true")
        for other in (None, f"{URL}2"):
            refused = await room.create(callback=other)
            assert (refused.status_code, code_of(refused)) == (409, "idempotency_conflict")
        assert (room.calls, len(await stored(room))) == (1, 1)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://shop.example.com/", "webhook_url_rejected"),
        ("https://127.0.0.1/", "webhook_url_rejected"),
        ("https://me@shop.example.com/", "webhook_url_rejected"),
        ("", "validation_failed"),
        ("https://b\u00fccher.example/", "validation_failed"),
    ],
)
async def test_a_create_with_a_callback_that_may_not_be_called_is_not_sent(
    sqlite_url: str, url: str, code: str
) -> None:
    async with serve_manually() as rivya, open_submission(sqlite_url, rivya) as room:
        headers = {b"authorization": b"Bearer write-token", b"receiver-callback-url": url.encode()}
        answer = await room.client.post("/api/v1/generations", content=BODY, headers=headers)
        assert (answer.status_code, code_of(answer)) == (400, code)
        assert (room.calls, await room.room.rows(submissions)) == (0, [])


async def test_two_callbacks_are_refused(sqlite_url: str) -> None:
    async with serve_manually() as rivya, open_submission(sqlite_url, rivya) as room:
        headers = [("Authorization", "Bearer write-token"), *[("Receiver-Callback-Url", URL)] * 2]
        answer = await room.client.post("/api/v1/generations", content=BODY, headers=headers)
        assert (answer.status_code, code_of(answer), room.calls) == (400, "validation_failed", 0)


async def test_without_a_secret_for_callbacks_none_is_accepted(sqlite_url: str) -> None:
    async with serve_manually() as rivya, open_submission(sqlite_url, rivya, makes_callbacks=False) as room:
        answer = await room.create(callback=URL)
        assert (answer.status_code, code_of(answer), room.calls) == (400, "callback_not_configured", 0)
        assert (await room.create()).is_success
    async with open_api(sqlite_url, makes_callbacks=False) as api:
        answer = await api.writer.put(PATH, json={"callback_url": URL})
        assert (answer.status_code, code_of(answer)) == (400, "callback_not_configured")
        assert (await api.client.get(PATH)).status_code == 404


async def test_the_callback_of_a_create_in_doubt_is_stored_when_its_outcome_is_known(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        room.sandbox.faults.api = [ApiFault(route="generations.create", when="after", connection="reset", times=1)]
        assert (await room.create(callback=URL)).status_code == 504
        assert await stored(room) == []
        room.clock.advance(seconds=LEASE_SECONDS)
        await room.retrier.run_once()
        assert await stored(room) == [((await room.generation())["id"], "shop", URL)]


async def test_a_refused_create_leaves_no_callback(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        assert (await room.create(b'{"model": "no-such-model"}', callback=URL)).status_code == 400
        assert await stored(room) == []


async def test_a_tracked_generation_may_have_a_callback_of_each_token_also_when_it_is_settled(
    database_url: str,
) -> None:
    async with open_api(database_url) as api:
        assert (await api.writer.put(PATH, json={"callback_url": f"{URL}&old"})).status_code == 201
        await api.record(webhook("g", "succeeded"))
        assert (await api.writer.put(PATH, json={"callback_url": URL})).status_code == 200
        assert (await api.admin.put(PATH, json={"callback_url": "https://ops.example.com/"})).status_code == 200
        rows = [(row["generation_id"], row["token"], row["url"]) for row in await api.room.rows(callbacks)]
        assert sorted(rows) == [("g", "admin", "https://ops.example.com/"), ("g", "write", URL)]


async def test_a_callback_that_may_not_be_called_tracks_nothing(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        answer = await api.writer.put(PATH, json={"callback_url": "https://localhost/"})
        assert (answer.status_code, code_of(answer)) == (400, "webhook_url_rejected")
        assert (await api.client.get(PATH)).status_code == 404


async def test_a_put_that_is_refused_stores_no_callback(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        await api.admin.put(PATH, json={"metadata": {"owner": "ops"}})
        answer = await api.writer.put(PATH, json={"metadata": {"owner": "shop"}, "callback_url": URL})
        assert (answer.status_code, await api.room.rows(callbacks)) == (403, [])


SETTINGS = {"RECEIVER_CALLBACK_SECRET": "0123456789abcdef" * 2, "RECEIVER_CALLBACK_ALLOW": "127.0.0.1"}


async def secret_of(room: Programs, name: str) -> str:
    secret: str = (await room.ask(name, "GET", "callback-secret")).json()["signing_secret"]
    return secret


def is_signed(room: Programs, call: Heard, secret: str) -> bool:
    headers = [(name.lower().encode(), value.encode()) for name, value in call.headers]
    verifier = Verifier(parse_scheme("standard-webhooks"), [secret])
    return isinstance(verifier.verify(headers, call.body, room.room.clock.now()), Verified)


async def test_a_callback_is_called_once_with_the_final_event_signed_with_its_tokens_secret(
    database_url: str,
) -> None:
    async with programs(database_url, **SETTINGS) as room:
        url = f"{room.receiver.url}/done?job=1"
        assert (await room.ask("shop", "PUT", "generations/g", json={"callback_url": url})).status_code == 201
        assert await room.deliver(webhook("g", "processing")) == []
        [call] = await room.deliver(webhook("g", "succeeded"))
        assert (call.method, call.target) == ("POST", "/done?job=1")
        assert call.header("webhook-id") == "evt_g_succeeded"
        assert is_signed(room, call, await secret_of(room, "shop"))
        assert not is_signed(room, call, await secret_of(room, "other"))
        assert (await room.ask("shop", "PUT", "generations/g", json={"callback_url": url})).status_code == 200
        assert await room.deliver() == []
        [notification] = await room.notifications("shop")
        assert (notification["endpoint_id"], notification["url"]) == (None, url)
        assert notification["status"] == "delivered"


async def test_each_token_is_called_about_the_same_generation_also_when_it_is_settled_already(
    database_url: str,
) -> None:
    async with programs(database_url, **SETTINGS) as room:
        await room.record(webhook("g", "failed"))
        for name in ("shop", "other"):
            body = {"callback_url": f"{room.receiver.url}/{name}"}
            assert (await room.ask(name, "PUT", "generations/g", json=body)).status_code == 200
        calls = {call.target: call for call in await room.deliver()}
        assert sorted(calls) == ["/other", "/shop"]
        assert is_signed(room, calls["/shop"], await secret_of(room, "shop"))
        assert is_signed(room, calls["/other"], await secret_of(room, "other"))
        assert await table_rows(room.room.service.database, callbacks) == []


async def test_a_callback_goes_only_where_its_own_list_allows(sqlite_url: str) -> None:
    async with programs(sqlite_url, RECEIVER_CALLBACK_SECRET=SETTINGS["RECEIVER_CALLBACK_SECRET"]) as room:
        answer = await room.ask("shop", "PUT", "generations/g", json={"callback_url": f"{room.receiver.url}/"})
        assert (answer.status_code, code_of(answer)) == (400, "webhook_url_rejected")


async def test_the_secret_of_callbacks_is_for_those_who_may_create(sqlite_url: str) -> None:
    async with programs(sqlite_url, **SETTINGS) as room:
        assert (await room.ask("eve", "GET", "callback-secret")).status_code == 403
        assert len({await secret_of(room, name) for name in ("shop", "shop", "alice")}) == 2
    async with programs(sqlite_url) as room:
        answer = await room.ask("shop", "GET", "callback-secret")
        assert (answer.status_code, code_of(answer)) == (400, "callback_not_configured")


async def test_a_generation_that_is_forgotten_takes_its_callbacks_with_it(database_url: str) -> None:
    async with programs(database_url, **SETTINGS) as room:
        await room.ask("shop", "PUT", "generations/g", json={"callback_url": f"{room.receiver.url}/"})
        assert len(await table_rows(room.room.service.database, callbacks)) == 1
        assert (await room.ask("tests", "DELETE", "generations/g?open=true")).is_success
        assert await table_rows(room.room.service.database, callbacks) == []
