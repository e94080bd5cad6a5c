"""/api/v1/webhooks as Rivya has it: our own client of Rivya manages endpoints there; each token reaches its own."""

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.notifications.tables import notification_dispatch, subscriptions
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaNotFound, RivyaRefused
from tests.support.api_harness import error_of
from tests.support.http_paths import HttpPath, serve_app
from tests.support.webhooks_harness import Programs, programs

DOCUMENTED = (
    *("id", "object", "name", "url", "event_types", "status", "secret_preview", "last_success_at", "last_failure_at"),
    *("failure_count", "created_at", "updated_at", "disabled_at", "revoked_at"),
)
ADDED = {"model", "submitted_by", "token"}


async def test_our_client_of_rivya_manages_endpoints_here_as_it_does_at_rivya(database_url: str) -> None:
    async with programs(database_url) as it, AsyncExitStack() as stack:
        served = await stack.enter_async_context(serve_app(it.room.service.app, HttpPath.PLAIN))
        rivya = await stack.enter_async_context(RivyaClient(served.url, "a-token-of-shop-00000"))
        created = await rivya.create_endpoint("Production", f"{it.receiver.url}/hook", ["generation.succeeded"])
        assert (created.name, created.status, created.event_types) == (
            *("Production", "active"),
            ("generation.succeeded",),
        )
        listed = await rivya.list_endpoints()
        assert listed.complete
        assert [each.id for each in listed.endpoints] == [created.id]
        assert (await rivya.get_endpoint(created.id)).secret is None
        changed = await rivya.update_endpoint(created.id, name="Another", status="disabled")
        assert changed is not None
        assert (changed.name, changed.status) == ("Another", "disabled")
        rotated = await rivya.rotate_endpoint_secret(created.id)
        assert rotated.secret not in (None, created.secret)
        await rivya.test_endpoint(created.id)
        await rivya.delete_endpoint(created.id)
        with pytest.raises(RivyaNotFound):
            await rivya.get_endpoint(created.id)
        assert (await rivya.list_endpoints()).endpoints == ()
        with pytest.raises(RivyaRefused) as refused:
            await rivya.create_endpoint("Production", "https://10.0.0.1/hook", ["generation.succeeded"])
        assert refused.value.code == "webhook_url_rejected"


async def test_an_endpoint_has_rivyas_members_and_its_secret_once(database_url: str) -> None:
    async with programs(database_url) as it:
        created = await it.webhook()
        secret = created.pop("signing_secret")
        assert created["secret_preview"] == f"{secret[:8]}...{secret[-6:]}"
        assert tuple(name for name in created if name not in ADDED) == DOCUMENTED
        assert created["event_types"] == ["generation.succeeded", "generation.failed"]
        assert created["created_at"] == "2026-05-10T12:00:00.000Z"
        assert created == await it.shown(created)
        assert (await it.ask("shop", "GET", "webhooks")).json() == {"object": "list", "data": [created]}
        async with it.room.service.database.read() as connection:
            row = (await connection.execute(select(subscriptions))).mappings().one()
        assert secret not in str(dict(row))


async def test_the_answers_have_the_members_of_the_sandbox(sqlite_url: str) -> None:
    async with programs(sqlite_url) as it:
        theirs = it.room.sandbox.endpoints.create("account", {"url": f"{it.receiver.url}/theirs"})
        ours = await it.webhook()
        assert {name for name in ours if name not in ADDED} == set(theirs.with_secret())
        ours = await it.shown(ours)
        assert [name for name in ours if name not in ADDED] == list(theirs.as_json())
        delivery = await it.room.sandbox.publisher.send_test(theirs)
        tested = (await it.ask("shop", "POST", f"webhooks/{ours['id']}/test")).json()
        assert list(tested) == list(delivery.as_json())
        listed = (await it.ask("shop", "GET", f"webhooks/{ours['id']}/deliveries")).json()
        assert (listed["object"], listed["data"]) == ("list", [tested])


async def test_a_rotated_endpoint_shows_its_new_secret_once(database_url: str) -> None:
    async with programs(database_url) as it:
        created = await it.webhook()
        rotated = (await it.ask("shop", "POST", f"webhooks/{created['id']}/rotate-secret")).json()
        assert rotated["signing_secret"] != created["signing_secret"]
        assert rotated["secret_preview"].endswith(rotated["signing_secret"][-6:])
        assert "signing_secret" not in await it.shown(created)


async def test_endpoints_of_others_are_answered_like_those_that_do_not_exist(database_url: str) -> None:
    async with programs(database_url) as it:
        created = await it.webhook("shop")
        for name in ("other", "alice"):
            assert (await it.ask(name, "GET", "webhooks")).json()["data"] == []
            for method, path in (
                *(("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-secret"), ("POST", "/test")),
                *(("GET", "/deliveries"), ("POST", "/resend")),
            ):
                asked = [f"webhooks/{each}{path}" for each in (created["id"], "whend_unknown")]
                options: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
                answers = [await it.ask(name, method, each, **options) for each in asked]
                assert [error_of(each) for each in answers] == [(404, "not_found")] * 2, (method, path)
        assert (await it.ask("eve", "GET", "webhooks")).status_code == 403
        assert [each["id"] for each in (await it.ask("tests", "GET", "webhooks")).json()["data"]] == [created["id"]]
        assert (await it.shown(created))["status"] == "active"


WRONG: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"url": "http://203.0.114.9/hook"}, "webhook_url_rejected", ""),
    ({"url": "https://user:word@shop.example/hook"}, "webhook_url_rejected", ""),
    ({"url": "https://shop.example/hook#part"}, "webhook_url_rejected", ""),
    ({"url": "https://192.168.1.1/hook"}, "webhook_url_rejected", ""),
    ({}, "validation_failed", "url"),
    ({"url": 7}, "validation_failed", "url"),
    ({"url": "https://203.0.114.9/hook", "event_types": []}, "validation_failed", "event_types"),
    ({"url": "https://203.0.114.9/hook", "event_types": ["generation.done"]}, "validation_failed", "event_types"),
    ({"url": "https://203.0.114.9/hook", "name": "a\u0000b"}, "validation_failed", "name"),
    ({"url": "https://203.0.114.9/hook", "model": "a\u0000b"}, "validation_failed", "model"),
    ({"url": "https://203.0.114.9/hook", "submitted_by": ""}, "validation_failed", "submitted_by"),
    ({"url": "https://203.0.114.9/hook", "colour": "red"}, "validation_failed", "colour"),
    ({"url": "https://203.0.114.9/hook", "status": "paused"}, "validation_failed", "status"),
)


async def test_what_is_wrong_is_named(sqlite_url: str) -> None:
    async with programs(sqlite_url) as it:
        created = await it.webhook()
        shown = {name: value for name, value in created.items() if name != "signing_secret"}
        for body, code, named in WRONG:
            answer = await it.ask("shop", "POST", "webhooks", json=body)
            assert error_of(answer) == (400, code), body
            assert named in answer.json()["error"]["message"], body
            if body and "status" not in body:
                answer = await it.ask("shop", "PATCH", f"webhooks/{created['id']}", json=body)
                assert error_of(answer) == (400, code), body
            assert await it.shown(created) == shown, body


async def test_alarms_are_for_the_role_admin(database_url: str) -> None:
    async with programs(database_url) as it:
        wanted = {"event_types": ["receiver.alarm"], "url": "https://203.0.114.9/hook"}
        assert error_of(await it.ask("shop", "POST", "webhooks", json=wanted)) == (403, "api_scope_denied")
        assert (await it.webhook("tests", event_types=["receiver.alarm"]))["event_types"] == ["receiver.alarm"]
        events = {name: (await it.ask(name, "GET", "webhook-events")).json()["data"] for name in ("shop", "tests")}
        types = {name: [each["type"] for each in listed] for name, listed in events.items()}
        assert types["shop"][:2] == ["generation.succeeded", "generation.failed"]
        assert types["tests"] == [*types["shop"], "receiver.alarm"]


async def test_a_change_keeps_what_it_does_not_name(database_url: str) -> None:
    async with programs(database_url) as it:
        created = await it.webhook(model="z-image")
        it.room.pass_time(seconds=5)
        answer = await it.ask("shop", "PATCH", f"webhooks/{created['id']}", json={"event_types": ["generation.failed"]})
        changed = answer.json()
        assert changed["event_types"] == ["generation.failed"]
        assert (changed["url"], changed["model"], changed["name"]) == (created["url"], "z-image", created["name"])
        assert changed["updated_at"] == "2026-05-10T12:00:05.000Z"
        answer = await it.ask("shop", "PATCH", f"webhooks/{created['id']}", json={"model": None})
        assert answer.json()["model"] is None


async def test_changes_are_in_the_audit_without_secrets(database_url: str) -> None:
    async with programs(database_url) as it:
        created = await it.webhook()
        path = f"webhooks/{created['id']}"
        for method, action in (("PATCH", ""), ("POST", "/rotate-secret"), ("DELETE", "")):
            it.room.pass_time(seconds=1)
            options = {"json": {"status": "paused"}} if method == "PATCH" else {}
            assert (await it.ask("shop", method, path + action, **options)).is_success
        entries = (await it.ask("tests", "GET", "audit")).json()["data"]
        assert [(each["action"], each["actor"], each["target"]) for each in entries] == [
            (f"webhook.{what}", "shop", created["id"]) for what in ("deleted", "rotated", "updated", "created")
        ]
        assert entries[2]["detail"] == "status=paused"
        assert created["signing_secret"] not in str(entries)


async def test_a_token_has_a_hundred_endpoints_at_most(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.notifications.repository.MOST_PER_TOKEN", 2)
    async with programs(sqlite_url) as it:
        first = await it.webhook()
        await it.webhook()
        answer = await it.ask("shop", "POST", "webhooks", json={"url": f"{it.receiver.url}/hook"})
        assert error_of(answer) == (400, "validation_failed")
        await it.webhook("other")
        await it.ask("shop", "DELETE", f"webhooks/{first['id']}")
        await it.webhook()


async def test_without_keys_no_secret_is_stored(sqlite_url: str) -> None:
    given = {"RIVYA_SIGNING_SECRET": "whsec_0123456789", "RECEIVER_ENCRYPTION_KEYS": ""}
    async with programs(sqlite_url, **given) as it:
        answer = await it.ask("shop", "POST", "webhooks", json={"url": f"{it.receiver.url}/hook"})
        assert error_of(answer) == (400, "encryption_not_configured")


async def test_the_feed_is_followed_while_there_is_an_endpoint(database_url: str) -> None:
    async with programs(database_url) as it:
        assert await cursor_of(it) is None
        first = await it.webhook()
        cursor = await cursor_of(it)
        second = await it.webhook("other")
        assert cursor == await cursor_of(it) is not None
        await it.ask("shop", "DELETE", f"webhooks/{first['id']}")
        assert cursor == await cursor_of(it)
        await it.ask("other", "DELETE", f"webhooks/{second['id']}")
        assert await cursor_of(it) is None


async def cursor_of(it: Programs) -> str | None:
    async with it.room.service.database.read() as connection:
        cursor: str | None = (await connection.execute(select(notification_dispatch.c.cursor))).scalar_one()
        return cursor


async def test_a_deleted_endpoint_is_removed_after_a_day(database_url: str) -> None:
    async with programs(database_url) as here:
        endpoint, other = await here.webhook(), await here.webhook()
        assert (await here.ask("shop", "DELETE", f"webhooks/{endpoint['id']}")).status_code == 200
        for days, ids in ((1, {endpoint["id"], other["id"]}), (2, {other["id"]})):
            await here.room.service.notifications.clean_up(now=here.room.clock.now() + timedelta(days=days))
            async with here.room.service.database.read() as connection:
                assert set((await connection.execute(select(subscriptions.c.id))).scalars()) == ids
