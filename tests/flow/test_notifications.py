"""What happens to generations reaches the webhooks of programs, signed, in Rivya's envelope."""

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from cryptography.fernet import Fernet
from sqlalchemy import insert, select, update

from app.core.encryption import SecretBox
from app.endpoint.repository import ReencryptionResult, reencrypt_secrets
from app.ledger.models import Report
from app.ledger.tables import callbacks
from app.notifications.events import callback_secret
from app.notifications.models import MOST_AT_ONCE
from app.notifications.tables import notification_dispatch, subscriptions
from app.rivya.schemes import parse_scheme
from app.rivya.signature import Verified, Verifier
from tests.support.clock import NOON
from tests.support.receivers import ENCRYPTION_KEY
from tests.support.reports import poll, submit, webhook
from tests.support.scripted_provider import Heard
from tests.support.webhooks_harness import programs

DELIVERY = (
    b'{"id": "evt_1", "type": "generation.succeeded", "api_version": "2026-05-12", "created_at": "2026-05-10T00:00:00Z"'
    b', "data":  {"object": {"id": "a", "status": "succeeded", "model": "z-image"}}}'
)


def delivered(body: bytes = DELIVERY, event_id: str = "evt_1", generation_id: str = "a") -> Report:
    report = webhook(generation_id, "succeeded", event_id=event_id)
    assert report.delivery is not None
    return replace(report, delivery=replace(report.delivery, body=body))


def types(heard: list[Heard]) -> list[tuple[str, str]]:
    events = [json.loads(each.body) for each in heard]
    return [(event["data"]["id"], event["type"].removeprefix("generation.")) for event in events]


async def test_a_delivery_of_rivyas_is_passed_on_byte_by_byte(database_url: str) -> None:
    async with programs(database_url) as it:
        endpoint = await it.webhook()
        [heard] = await it.deliver(submit("a"), delivered())
        assert heard.body == DELIVERY
        assert (heard.method, heard.target) == ("POST", "/hook")
        assert heard.header("webhook-id") == "evt_1"
        assert heard.header("content-type") == "application/json"
        shown = await it.shown(endpoint)
        assert shown["last_success_at"] == "2026-05-10T12:00:00.000Z"
        [row] = await it.notifications("shop")
        assert (row["status"], row["event_id"], row["generation_id"]) == ("delivered", "evt_1", "a")
        [attempt] = row["attempts"]
        assert (attempt["status"], attempt["error"], attempt["excerpt"]) == (200, None, None)
        assert (await it.notifications("tests"))[0]["attempts"][0]["excerpt"] == "thanks"
        assert await it.send() == []


async def test_what_a_poll_found_comes_in_the_envelope_of_the_deliveries(database_url: str) -> None:
    async with programs(database_url) as it:
        await it.webhook()
        await it.deliver(submit("a"), delivered())
        [heard] = await it.deliver(submit("b"), poll("b", "failed"))
        event = json.loads(heard.body)
        assert list(event) == ["id", "type", "api_version", "created_at", "data"]
        assert event["type"] == "generation.failed"
        assert event["api_version"] == "2026-05-12"
        assert event["id"].startswith("evt_")
        assert event["id"] == heard.header("webhook-id")
        assert event["data"]["object"]["id"] == "b"
        assert (event["data"]["object"]["status"], event["data"]["object"]["error"]) == ("failed", None)


async def test_either_verifier_accepts_it_with_the_secret_of_the_endpoint(database_url: str) -> None:
    async with programs(database_url, RIVYA_SIGNATURE_SCHEME="timestamped") as it:
        endpoint = await it.webhook()
        first = endpoint["signing_secret"]
        rotated = (await it.ask("shop", "POST", f"webhooks/{endpoint['id']}/rotate-secret")).json()["signing_secret"]

        def accepting(heard: Heard) -> list[str]:
            """The secrets with which both verifiers accept it."""
            schemes, now = ("timestamped", "standard-webhooks"), it.room.clock.now()
            return [
                secret
                for secret in (first, rotated)
                if all(accepts(heard, secret, scheme=scheme, at=now) for scheme in schemes)
            ]

        [heard] = await it.deliver(submit("a"), delivered())
        assert accepting(heard) == [first, rotated]
        it.room.pass_time(hours=73)
        [later] = await it.deliver(submit("b"), poll("b", "succeeded"))
        assert accepting(later) == [rotated]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("a", "succeeded"), ("b", "failed")]),
        ({"event_types": ["generation.failed"]}, [("b", "failed")]),
        (
            {"event_types": ["generation.queued", "generation.failed"]},
            [("a", "queued"), ("b", "queued"), ("b", "failed")],
        ),
        ({"model": "z-image"}, [("a", "succeeded")]),
        ({"submitted_by": "alice"}, [("b", "failed")]),
    ],
)
async def test_an_endpoint_gets_what_it_asks_for(
    database_url: str, changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    async with programs(database_url) as it:
        await it.webhook(**changes)
        a, b = submit("a"), replace(submit("b"), token="alice")
        assert a.claim is not None
        heard = await it.deliver(replace(a, claim=replace(a.claim, model="z-image")), b)
        heard += await it.deliver(poll("a", "succeeded"), poll("b", "failed"))
        assert sorted(types(heard)) == sorted(expected)


async def test_a_fenced_token_gets_only_its_own(database_url: str) -> None:
    async with programs(database_url) as it:
        await it.webhook("alice", url=f"{it.receiver.url}/alice")
        await it.webhook("shop", url=f"{it.receiver.url}/shop")
        hers, nobodys = replace(submit("a"), token="alice"), replace(submit("b"), token="shop")
        heard = await it.deliver(hers, nobodys, poll("a", "succeeded"), poll("b", "succeeded"))
        assert sorted((each.target, json.loads(each.body)["data"]["id"]) for each in heard) == [
            ("/alice", "a"),
            ("/shop", "a"),
            ("/shop", "b"),
        ]
        assert {row["token"] for row in await it.notifications("alice")} == {"alice"}


async def test_an_endpoint_gets_what_happens_from_its_creation_on(database_url: str) -> None:
    async with programs(database_url) as it:
        await it.record(submit("a"), poll("a", "succeeded"))
        await it.webhook(url=f"{it.receiver.url}/first")
        await it.record(submit("b"), poll("b", "succeeded"))
        await it.webhook(url=f"{it.receiver.url}/second")
        heard = await it.deliver(submit("c"), poll("c", "succeeded"))
        assert sorted((each.target, json.loads(each.body)["data"]["id"]) for each in heard) == [
            ("/first", "b"),
            ("/first", "c"),
            ("/second", "c"),
        ]


async def test_a_callback_of_one_job_is_called_once_with_its_outcome(database_url: str) -> None:
    async with programs(database_url, RECEIVER_CALLBACK_SECRET="s" * 32, RECEIVER_CALLBACK_ALLOW="127.0.0.1") as it:
        wanted = [
            {"generation_id": each, "token": token, "url": f"{it.receiver.url}/{token}", "created_at": NOON}
            for each, token in (("a", "shop"), ("a", "other"), ("b", "shop"))
        ]
        async with it.room.service.database.transaction() as connection:
            await connection.execute(insert(callbacks), wanted)
        assert await it.deliver(submit("a"), submit("b")) == []
        heard = await it.deliver(delivered())
        assert sorted((each.target, each.header("webhook-id")) for each in heard) == [
            ("/other", "evt_1"),
            ("/shop", "evt_1"),
        ]
        assert {each.body for each in heard} == {DELIVERY}
        for each in heard:
            secret = callback_secret("s" * 32, each.target[1:])
            assert accepts(each, secret, at=it.room.clock.now())
            assert not accepts(each, callback_secret("s" * 32, "alice"), at=it.room.clock.now())
        assert await it.deliver() == []
        [row] = await it.notifications("shop")
        assert (row["endpoint_id"], row["url"]) == (None, f"{it.receiver.url}/shop")
        assert (await it.notifications("tests"))[0]["attempts"][0]["excerpt"] is None
        [later] = await it.deliver(poll("b", "failed"))
        assert json.loads(later.body)["type"] == "generation.failed"


def accepts(heard: Heard, secret: str, *, scheme: str = "standard-webhooks", at: datetime) -> bool:
    headers = [(name.encode(), value.encode()) for name, value in heard.headers]
    return isinstance(Verifier(parse_scheme(scheme), [secret]).verify(headers, heard.body, at), Verified)


async def test_five_callbacks_of_one_token_are_under_way_and_none_of_a_revoked_one(database_url: str) -> None:
    async with programs(database_url, RECEIVER_CALLBACK_SECRET="s" * 32, RECEIVER_CALLBACK_ALLOW="127.0.0.1") as it:
        await it.ask("tests", "POST", "tokens", json={"name": "new", "role": "write"})
        ids = [f"g{number}" for number in range(8)]
        wanted = [
            {"generation_id": each, "token": token, "url": f"{it.receiver.url}/{token}", "created_at": NOON}
            for each in (*ids, "open")
            for token in ("shop", "new")
        ]
        async with it.room.service.database.transaction() as connection:
            await connection.execute(insert(callbacks), wanted)
        await it.record(*(submit(each) for each in (*ids, "open")), *(poll(each, "succeeded") for each in ids))
        await it.dispatch()
        await it.ask("tests", "DELETE", "tokens/new")
        sender = it.room.service.notification_sender
        sender.wake()
        await sender.run_once()
        assert sender.under_way == MOST_AT_ONCE
        await it.send()
        it.room.pass_time(seconds=90)  # an attempt that went wrong on the way is made again
        await it.dispatch()
        await it.send()
        assert [each.target for each in it.receiver.heard] == ["/shop"] * 8
        ended = {(row["token"], row["status"]) for row in await it.notifications(limit=200)}
        assert ended == {("shop", "delivered"), ("new", "canceled")}
        async with it.room.service.database.read() as connection:
            left = (await connection.execute(select(callbacks.c.generation_id, callbacks.c.token))).all()
        assert [tuple(row) for row in left] == [("open", "shop")]


async def test_a_cursor_of_another_feed_goes_on_at_the_end(database_url: str) -> None:
    async with programs(database_url) as it:
        await it.webhook()
        async with it.room.service.database.transaction() as connection:
            await connection.execute(update(notification_dispatch).values(cursor="of another database"))
        with structlog.testing.capture_logs() as logged:
            assert await it.deliver(submit("a"), delivered()) == []
        assert [line["reason"] for line in logged if line["event"] == "notifications.gap"] == ["cursor"]
        assert len(await it.deliver(submit("b"), poll("b", "succeeded"))) == 1


async def test_without_an_endpoint_there_is_one_look_and_nothing_else(database_url: str) -> None:
    async with programs(database_url) as it:
        await it.record(submit("a"), delivered())
        await it.send()
        statements: list[str] = []
        engine = it.room.service.database.engine.sync_engine
        sa.event.listen(engine, "before_cursor_execute", lambda _, __, statement, *___: statements.append(statement))
        for _ in range(3):
            await it.dispatch()
        await it.room.service.notification_sender.run_once()
        looks = [statement for statement in statements if statement != "BEGIN"]
        assert len(looks) == 3
        assert len(set(looks)) == 1
        assert looks[0].startswith("SELECT")


async def test_without_an_endpoint_nothing_is_written(database_url: str) -> None:
    async with programs(database_url) as it:
        endpoint = await it.webhook()
        await it.ask("shop", "DELETE", f"webhooks/{endpoint['id']}")
        assert await it.deliver(submit("a"), delivered()) == []
        assert await it.notifications() == []
        await it.webhook()
        assert await it.deliver() == []


async def test_a_revoked_token_gets_nothing_more(database_url: str) -> None:
    async with programs(database_url) as it:
        token = (await it.ask("tests", "POST", "tokens", json={"name": "new", "role": "write"})).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        body = {"url": f"{it.receiver.url}/hook"}
        answer = await it.room.client.post("/api/v1/webhooks", json=body, headers=headers)
        assert answer.status_code == 201
        await it.record(submit("a"), delivered())
        await it.dispatch()
        await it.ask("tests", "DELETE", "tokens/new")
        assert await it.send() == []
        it.room.pass_time(seconds=10)
        await it.dispatch()
        [row] = await it.notifications()
        assert (row["status"], row["attempts"]) == ("canceled", [])
        assert (await it.ask("tests", "GET", "webhooks")).json()["data"] == []


async def test_notifications_are_removed_so_long_after_their_end(database_url: str) -> None:
    async with programs(database_url, RECEIVER_RETENTION_DAYS="10") as it:
        await it.webhook()
        held = await it.webhook("other")
        await it.ask("other", "PATCH", f"webhooks/{held['id']}", json={"status": "paused"})
        await it.deliver(submit("a"), delivered())
        it.room.pass_time(days=9)
        await it.room.service.retention.run_once()
        assert [row["status"] for row in await it.notifications("shop")] == ["delivered"]
        it.room.pass_time(days=1, seconds=1)
        await it.room.service.retention.run_once()
        assert await it.notifications("shop") == []
        assert [row["status"] for row in await it.notifications("other")] == ["held"]
        await it.dispatch()  # gives up what was held for too long
        it.room.pass_time(days=10, seconds=1)
        await it.room.service.retention.run_once()
        assert await it.notifications() == []


async def test_a_generation_that_is_deleted_takes_its_notifications_with_it(database_url: str) -> None:
    async with programs(database_url) as it:
        await it.webhook()
        await it.deliver(submit("a"), delivered(), submit("b"), poll("b", "failed"))
        assert (await it.ask("tests", "DELETE", "generations/a")).is_success
        assert [row["generation_id"] for row in await it.notifications()] == ["b"]


async def test_secrets_of_endpoints_are_encrypted_anew_with_the_others(database_url: str) -> None:
    newer = Fernet.generate_key().decode()
    columns = (subscriptions.c.secret, subscriptions.c.previous_secret)
    async with programs(database_url) as it:
        endpoint = await it.webhook()
        rotated = (await it.ask("shop", "POST", f"webhooks/{endpoint['id']}/rotate-secret")).json()
        await it.webhook("other")
        database = it.room.service.database
        done = await reencrypt_secrets(database, SecretBox([newer, ENCRYPTION_KEY]), columns)
        assert done == ReencryptionResult(3, 3)
        async with database.read() as connection:
            stored = (await connection.execute(select(*columns).where(subscriptions.c.id == endpoint["id"]))).one()
        opened = [SecretBox([newer]).decrypt(sealed) for sealed in stored]
        assert opened == [rotated["signing_secret"], endpoint["signing_secret"]]
