"""The sandbox's nine webhook routes have the documented shapes and show a secret once."""

from typing import Any

import pytest

from app.sandbox.settings import SandboxSettings
from tests.support.sandbox_harness import World, world

PUBLIC = "https://example.com/rivya/webhook"


async def listed(w: World, path: str = "/api/v1/webhooks") -> list[dict[str, Any]]:
    answer = (await w.client.get(path)).json()
    assert answer["object"] == "list"
    rows: list[dict[str, Any]] = answer["data"]
    return rows


async def test_create_answers_the_documented_object_with_its_secret() -> None:
    async with world() as w:
        body = {"name": "Production webhook", "url": PUBLIC, "event_types": ["generation.succeeded"]}
        created = (await w.client.post("/api/v1/webhooks", json=body)).json()
        assert created["id"].startswith("whend_")
        secret = created["signing_secret"]
        assert secret.startswith("whsec_")
        assert created == {
            "id": created["id"],
            "object": "webhook_endpoint",
            **body,
            "status": "active",
            "secret_preview": f"{secret[:8]}...{secret[-6:]}",
            "signing_secret": secret,
            "last_success_at": None,
            "last_failure_at": None,
            "failure_count": 0,
            "created_at": created["created_at"],
            "updated_at": created["created_at"],
            "disabled_at": None,
            "revoked_at": None,
        }


async def test_only_create_shows_the_secret() -> None:
    async with world() as w:
        created = await w.register()
        secret = created.pop("signing_secret")
        assert await listed(w) == [created]
        assert (await w.client.get(f"/api/v1/webhooks/{created['id']}")).json() == created
        patched = await w.client.patch(f"/api/v1/webhooks/{created['id']}", json={"name": "b"})
        assert secret not in patched.text


async def test_rotation_shows_a_new_secret_once() -> None:
    async with world() as w:
        created = await w.register()
        rotated = (await w.client.post(f"/api/v1/webhooks/{created['id']}/rotate-secret")).json()
        assert rotated["id"] == created["id"]
        assert rotated["signing_secret"] not in ("", created["signing_secret"])
        assert "signing_secret" not in (await listed(w))[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x",
        "https://user:pw@example.com/x",
        "https://example.com/x#part",
        "ftp://example.com/x",
        "example.com",
        "",
        "https://[::1",
    ],
)
async def test_a_url_that_is_not_allowed_is_rejected(url: str) -> None:
    async with world() as w:
        answer = await w.client.post("/api/v1/webhooks", json={"name": "x", "url": url})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "webhook_url_rejected")
        assert await listed(w) == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": 7},
        {"url": PUBLIC, "name": None},
        {"url": PUBLIC, "event_types": []},
        {"url": PUBLIC, "event_types": "generation.failed"},
        {"url": PUBLIC, "event_types": ["generation.dreamt"]},
        {"url": PUBLIC, "event_types": [{}]},
        {"url": PUBLIC, "status": "asleep"},
    ],
)
async def test_a_body_that_can_not_be_used_is_refused(body: dict[str, Any]) -> None:
    async with world() as w:
        answer = await w.client.post("/api/v1/webhooks", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_failed")


async def test_patch_changes_what_it_names_and_nothing_else() -> None:
    async with world() as w:
        created = await w.register()
        change = {"name": "other", "url": PUBLIC, "event_types": ["generation.failed"], "status": "disabled"}
        patched = (await w.client.patch(f"/api/v1/webhooks/{created['id']}", json=change)).json()
        assert {name: patched[name] for name in change} == change
        assert patched["disabled_at"] is not None
        again = (await w.client.patch(f"/api/v1/webhooks/{created['id']}", json={"status": "active"})).json()
        assert (again["status"], again["disabled_at"], again["name"]) == ("active", None, "other")


async def test_a_deleted_endpoint_is_gone_and_gets_nothing() -> None:
    async with world() as w:
        path = f"/api/v1/webhooks/{(await w.register())['id']}"
        assert (await w.client.delete(path)).json()["deleted"] is True
        assert (await w.client.get(path)).status_code == 404
        await w.sandbox.settle(await w.create())
        assert w.inbox.received == []


async def test_a_deleted_endpoint_can_stay_listed_as_revoked_and_stays_dead() -> None:
    async with world(SandboxSettings(deleted_endpoints="revoked", delete_status=204)) as w:
        path = f"/api/v1/webhooks/{(await w.register())['id']}"
        assert (await w.client.delete(path)).status_code == 204
        row = (await listed(w))[0]
        assert (row["status"], row["revoked_at"] is None) == ("revoked", False)
        assert (await w.client.patch(path, json={"status": "active"})).status_code == 404
        assert (await w.client.post(f"{path}/rotate-secret")).status_code == 404


async def test_an_endpoint_gets_only_the_types_it_asked_for() -> None:
    async with world() as w:
        await w.register(event_types=["generation.failed"])
        await w.sandbox.settle(await w.create(), "succeeded")
        await w.sandbox.settle(await w.create(), "failed")
        assert w.inbox.types == ["generation.failed"]


async def test_a_test_delivery_arrives_before_it_is_answered() -> None:
    async with world() as w:
        created = await w.register()
        answer = (await w.client.post(f"/api/v1/webhooks/{created['id']}/test")).json()
        assert w.inbox.types == ["webhook.test"]
        assert (answer["event_id"], answer["response_status"]) == (w.inbox.ids[0], 200)


async def test_a_test_event_can_be_of_another_type_and_carry_a_generation() -> None:
    settings = SandboxSettings(test_type="ping", test_carries="generation")
    async with world(settings) as w:
        created = await w.register()
        await w.client.post(f"/api/v1/webhooks/{created['id']}/test")
        assert w.inbox.types == ["ping"]
        assert w.inbox.received[0].event["data"]["status"] == "succeeded"


async def test_deliveries_and_events_are_listed_newest_first() -> None:
    async with world() as w:
        created = await w.register()
        await w.sandbox.settle(await w.create())
        await w.sandbox.settle(await w.create(), "failed")
        newest_first = w.inbox.ids[::-1]
        deliveries = await listed(w, f"/api/v1/webhooks/{created['id']}/deliveries")
        assert [row["event_id"] for row in deliveries] == newest_first
        assert {row["status"] for row in deliveries} == {"succeeded"}
        assert [row["id"] for row in await listed(w, "/api/v1/webhook-events")] == newest_first


async def test_webhook_events_can_list_the_types_instead() -> None:
    async with world(SandboxSettings(webhook_events="types")) as w:
        rows = await listed(w, "/api/v1/webhook-events")
        assert [row["type"] for row in rows] == ["generation.succeeded", "generation.failed"]


async def test_lists_can_be_bare_arrays() -> None:
    async with world(SandboxSettings(list_shape="array")) as w:
        created = await w.register()
        assert [row["id"] for row in (await w.client.get("/api/v1/webhooks")).json()] == [created["id"]]


async def test_strict_rules_refuse_what_local_ones_let_in() -> None:
    async with world() as w:
        assert (await w.register())["status"] == "active"
        w.sandbox.settings.url_rules = "strict"
        assert (await w.register())["error"]["code"] == "webhook_url_rejected"
