"""Managed tokens over HTTP: made, shown once, listed, rotated, revoked, expired; every act is in the audit."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.core.audit import audit
from app.core.auth import REFUSALS
from app.core.errors import Overloaded
from app.sandbox.faults import ApiFault
from app.tokens.repository import token_revision, token_secrets, tokens
from app.tokens.service import NameClash
from tests.support.clock import NOON
from tests.support.receivers import TOKEN
from tests.support.service_harness import ServiceHarness, open_service
from tests.support.tokens import TOKENS, call, create

GENERATIONS = "/api/v1/generations"


async def status_with(room: ServiceHarness, token: str) -> tuple[int, str | None]:
    answer = await call(room, "GET", GENERATIONS, token)
    return answer.status_code, answer.json().get("error", {}).get("code")


async def test_a_new_token_works_at_once_and_its_secret_is_stored_nowhere(database_url: str) -> None:
    async with open_service(database_url) as room:
        secret = await create(room, models=["z-image"], rate=60, credits_per_day=1.5)
        assert secret.startswith("rcv_")
        assert len(secret) == len("rcv_") + 43
        assert await status_with(room, secret) == (200, None)
        stored = [str(row) for table in (tokens, token_secrets, audit) for row in await rows(room, table)]
        assert secret not in "".join(stored)
        listed = await call(room, "GET", TOKENS)
        assert secret not in listed.text
        by_name = {each["name"]: each for each in listed.json()["data"]}
        nothing = {"credits": {"day": None, "month": None}}
        assert by_name["tests"] == {**dict.fromkeys(by_name["shop"]), **SETTING, **nothing}
        day = {"limit": 1.5, "reserved": 0, "spent": 0, "left": 1.5, "renews_at": "2026-05-11T00:00:00Z"}
        credits_left = {"credits": {"day": day, "month": None}}
        assert by_name["shop"] == {**SHOP, "created_at": "2026-05-10T12:00:00Z", **credits_left}


SETTING = {"object": "token", "name": "tests", "role": "admin", "managed": False}
SHOP = {
    "object": "token",
    "name": "shop",
    "role": "write",
    "managed": True,
    "created_by": "tests",
    "credits_per_day": 1.5,
    "credits_per_month": None,
    "models": ["z-image"],
    "rate": 60,
    **dict.fromkeys(("expires_at", "revoked_at", "last_used_at")),
}


async def rows(room: ServiceHarness, table: Any) -> list[dict[str, Any]]:
    async with room.service.database.read() as connection:
        return [dict(row) for row in (await connection.execute(select(table))).mappings()]


async def test_a_revoked_token_is_refused_and_stays_in_the_list(database_url: str) -> None:
    async with open_service(database_url) as room:
        secret = await create(room)
        revoked = await call(room, "DELETE", f"{TOKENS}/shop")
        assert revoked.json()["revoked_at"] == "2026-05-10T12:00:00Z"
        assert await status_with(room, secret) == (401, "api_key_revoked")
        room.pass_time(hours=1)
        again = await call(room, "DELETE", f"{TOKENS}/shop")
        assert (again.status_code, again.json()["revoked_at"]) == (200, "2026-05-10T12:00:00Z")
        for method, path in (("POST", f"{TOKENS}/shop/rotate"), ("PATCH", f"{TOKENS}/shop")):
            refused = await call(room, method, path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "token_revoked")


async def test_limits_and_expiry_are_changed_and_what_is_not_named_stays(database_url: str) -> None:
    async with open_service(database_url) as room:
        secret = await create(room, credits_per_day=1, rate=60, models=["z-image"])
        changed = await call(room, "PATCH", f"{TOKENS}/shop", json={"credits_per_day": 9, "rate": None})
        about = changed.json()
        assert (about["credits_per_day"], about["rate"], about["models"]) == (9, None, ["z-image"])
        mine = (await call(room, "GET", f"{TOKENS}/me", secret)).json()
        assert (mine["credits"]["day"]["left"], mine["rate"], mine["expires_at"]) == (9, None, None)
        changed = await call(room, "PATCH", f"{TOKENS}/shop", json={"expires_in": 60, "models": None})
        assert (changed.json()["expires_at"], changed.json()["models"]) == ("2026-05-10T12:01:00Z", None)
        assert (await rows(room, audit))[-1]["detail"] == "role write; 9 credits a day; expires 2026-05-10 12:01:00Z"
        room.pass_time(seconds=60)
        assert await status_with(room, secret) == (401, "api_key_expired")
        await call(room, "PATCH", f"{TOKENS}/shop", json={"expires_in": None})
        assert await status_with(room, secret) == (200, None)


async def test_a_body_that_ends_after_its_token_was_revoked_changes_nothing(database_url: str) -> None:
    async with open_service(database_url) as room:
        secret = await create(room, role="admin")
        bodies = {
            ("POST", GENERATIONS): b'{"model": "z-image"}',
            ("PUT", f"{GENERATIONS}/g"): b"{}",
            ("POST", TOKENS): b'{"name": "mine", "role": "admin"}',
            ("PATCH", f"{TOKENS}/shop"): b'{"rate": null}',
            ("POST", "/api/v1/chat/completions"): b'{"model": "gpt-5-2-chat", "message": "hello"}',
        }

        async def dripping(body: bytes) -> AsyncIterator[bytes]:
            yield body[:1]
            await call(room, "DELETE", f"{TOKENS}/{name}")
            yield body[1:]

        for number, ((method, path), body) in enumerate(bodies.items()):
            name = f"token-{number}"
            secret = await create(room, name=name, role="admin")
            refused = await call(room, method, path, secret, content=dripping(body))
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "api_key_revoked"), path
        assert not room.sandbox.calls.counts
        assert (await call(room, "GET", GENERATIONS)).json()["data"] == []
        assert "mine" not in (await call(room, "GET", TOKENS)).text


async def test_a_create_under_way_is_refused_when_its_token_is_revoked_and_goes_on_all_the_same(
    database_url: str,
) -> None:
    async with open_service(database_url) as room:
        room.sandbox.faults.api = [ApiFault(route="generations.create", hang=60)]
        secret = await create(room, credits_per_day=5)
        creating = asyncio.create_task(call(room, "POST", GENERATIONS, secret, json={"model": "z-image"}))
        while not room.sandbox.calls.counts["generations.create"]:
            await asyncio.sleep(0)
        await call(room, "DELETE", f"{TOKENS}/shop")
        refused = await creating
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "api_key_revoked")
        await room.sandbox.advance(60)
        async with asyncio.timeout(10):
            while not (listed := (await call(room, "GET", GENERATIONS)).json()["data"]):
                await asyncio.sleep(0)
        assert [each["tracking"]["submitted_by"] for each in listed] == ["shop"]
        by_name = {each["name"]: each for each in (await call(room, "GET", TOKENS)).json()["data"]}
        assert by_name["shop"]["credits"]["day"]["reserved"] == 1


async def test_refusals_are_counted_by_reason_and_name_no_token(database_url: str) -> None:
    def counted() -> dict[str, float]:
        [metric] = REFUSALS.collect()
        return {sample.labels["reason"]: sample.value for sample in metric.samples if sample.name.endswith("_total")}

    before = counted()
    async with open_service(database_url) as room:
        secret = await create(room, role="write-own", models=["seedance"])
        await call(room, "GET", GENERATIONS, "")
        await call(room, "GET", GENERATIONS, "rcv_unknown")
        await call(room, "GET", TOKENS, secret)
        await call(room, "POST", GENERATIONS, secret, json={"model": "z-image"})
        await call(room, "DELETE", f"{TOKENS}/shop")
        await call(room, "GET", f"{GENERATIONS}/g", secret)
        scraped = await room.client.get("/metrics")
    grown = {reason: value - before.get(reason, 0) for reason, value in counted().items()}
    assert {reason: value for reason, value in grown.items() if value} == dict.fromkeys(
        ("api_key_missing", "api_key_invalid", "api_scope_denied", "model_not_allowed", "api_key_revoked"), 1
    )
    assert "receiver_token_refusals_total" in scraped.text
    assert "shop" not in scraped.text


async def test_managed_tokens_count_when_slots_to_rivya_are_shared(database_url: str) -> None:
    async with open_service(database_url) as room:
        limit = room.service.gateway.limit
        half = (room.service.settings.receiver_rivya_concurrency + 1) // 2
        with contextlib.ExitStack() as held:
            for _ in range(half):
                held.enter_context(limit.acquire("tests"))
            with limit.acquire("tests"):
                pass  # alone, a token may have them all
            secret = await create(room)
            with pytest.raises(Overloaded):
                held.enter_context(limit.acquire("tests"))
            assert (await call(room, "GET", "/api/v1/credits", secret)).status_code == 200
            await call(room, "DELETE", f"{TOKENS}/shop")
            with limit.acquire("tests"):
                pass


async def test_an_expired_token_is_refused(database_url: str) -> None:
    async with open_service(database_url) as room:
        secret = await create(room, expires_in=60)
        room.pass_time(seconds=59)
        await room.service.tokens.run_once()
        assert await status_with(room, secret) == (200, None)
        room.pass_time(seconds=1)
        assert await status_with(room, secret) == (401, "api_key_expired")


async def test_a_rotated_token_keeps_its_name_and_for_a_time_its_old_secret(database_url: str) -> None:
    async with open_service(database_url) as room:
        old = await create(room)
        rotated = await call(room, "POST", f"{TOKENS}/shop/rotate", json={"overlap": 60})
        middle = rotated.json()["token"]
        assert rotated.json()["name"] == "shop"
        new = (await call(room, "POST", f"{TOKENS}/shop/rotate", json={"overlap": 3600})).json()["token"]
        assert [await status_with(room, each) for each in (old, middle, new)] == [(200, None)] * 3
        room.pass_time(seconds=61)
        await room.service.tokens.run_once()
        assert await status_with(room, old) == (401, "api_key_expired")
        assert [await status_with(room, each) for each in (middle, new)] == [(200, None)] * 2
        newest = (await call(room, "POST", f"{TOKENS}/shop/rotate")).json()["token"]
        assert [(await status_with(room, each))[0] for each in (middle, new, newest)] == [401, 401, 200]


@pytest.mark.parametrize("name", ["shop", "tests", "me", ".."])
async def test_a_name_is_given_once_even_after_its_token_was_revoked(database_url: str, name: str) -> None:
    async with open_service(database_url) as room:
        await create(room)
        await call(room, "DELETE", f"{TOKENS}/shop")
        refused = await call(room, "POST", TOKENS, json={"name": name, "role": "read"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "name_taken")


async def test_a_name_of_the_settings_that_a_managed_token_has_stops_the_start_by_name(database_url: str) -> None:
    async with open_service(database_url) as room:
        await create(room)
    shop = f"tests:admin:{TOKEN},shop:read:0123456789abcdef"
    async with open_service(database_url, RECEIVER_API_TOKENS=shop) as room:
        reasons: list[str] = []
        room.service.give_up = reasons.append
        with pytest.raises(NameClash):
            await room.service.prepare()
        await room.service._start()
        [reason] = reasons
        assert reason.startswith("RECEIVER_API_TOKENS: the name shop is the one of a managed token; ")
        await call(room, "DELETE", f"{TOKENS}/shop")
        await room.service.tokens.load()


async def test_another_process_knows_of_a_change_at_its_next_look(database_url: str) -> None:
    async with open_service(database_url) as here, open_service(database_url) as there:
        await there.service.tokens.run_once()
        secret = await create(here)
        assert await status_with(there, secret) == (401, "api_key_invalid")
        assert await there.service.tokens.run_once() <= 0.5
        assert await status_with(there, secret) == (200, None)
        await call(here, "DELETE", f"{TOKENS}/shop")
        await there.service.tokens.run_once()
        assert await status_with(there, secret) == (401, "api_key_revoked")


async def test_the_last_use_is_noted_once_a_minute(database_url: str) -> None:
    async with open_service(database_url) as room:
        secret = await create(room)
        await status_with(room, secret)
        await room.service.tokens.run_once()
        assert (await rows(room, tokens))[0]["last_used_at"] is None
        room.pass_time(seconds=60)
        [before] = await rows(room, token_revision)
        await room.service.tokens.run_once()
        assert (await rows(room, tokens))[0]["last_used_at"] == NOON + timedelta(seconds=60)
        assert await rows(room, token_revision) == [before]


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({}, "name: is required."),
        ({"name": "a b", "role": "read"}, "name: "),
        ({"name": "a\x00", "role": "read"}, "name: "),
        ({"name": "a", "role": "read", "models": ["a\x00"]}, "models.0: "),
        ({"name": "a", "role": "owner"}, "role: "),
        ({"name": "a", "role": "read", "rate": 0}, "rate: "),
        ({"name": "a", "role": "read", "rate": True}, "rate: "),
        ({"name": "a", "role": "read", "rate": "60"}, "rate: "),
        ({"name": "a", "role": "read", "credits_per_day": True}, "credits_per_day: "),
        ({"name": "a", "role": "read", "credits_per_day": -1}, "credits_per_day: "),
        ({"name": "a", "role": "read", "expires_in": 0}, "expires_in: "),
        ({"name": "a", "role": "read", "colour": "red"}, "colour: there is no such parameter or member."),
    ],
)
async def test_what_a_token_can_not_be_is_named(sqlite_url: str, members: dict[str, Any], named: str) -> None:
    async with open_service(sqlite_url) as room:
        refused = await call(room, "POST", TOKENS, json=members)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "validation_failed")
        assert named in refused.json()["error"]["message"]


@pytest.mark.parametrize("levels", [201, 1000])
async def test_a_body_that_nests_deeply_is_refused(sqlite_url: str, levels: int) -> None:
    async with open_service(sqlite_url) as room:
        body = b'{"name": "a", "role": "read", "models": ' + b"[" * levels + b"]" * levels + b"}"
        refused = await call(room, "POST", TOKENS, content=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "validation_failed")


async def test_a_whole_number_may_be_written_with_a_fraction_of_zero(sqlite_url: str) -> None:
    async with open_service(sqlite_url) as room:
        created = await call(room, "POST", TOKENS, content=b'{"name": "a", "role": "read", "rate": 60.0}')
        assert (created.status_code, created.json()["rate"]) == (201, 60)


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "nobody"), ("PATCH", "nobody"), ("POST", "nobody/rotate"), ("DELETE", "tests")]
)
async def test_a_token_that_is_not_managed_is_not_found(sqlite_url: str, method: str, path: str) -> None:
    async with open_service(sqlite_url) as room:
        answer = await call(room, method, f"{TOKENS}/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_every_token_reads_about_itself(database_url: str) -> None:
    async with open_service(database_url) as room:
        secret = await create(room, role="read-own", credits_per_month=10)
        mine = (await call(room, "GET", f"{TOKENS}/me", secret)).json()
        assert (mine["name"], mine["role"], mine["credits_per_month"], mine["managed"]) == (
            "shop",
            "read-own",
            10,
            True,
        )
        admin = (await call(room, "GET", f"{TOKENS}/me")).json()
        assert (admin["name"], admin["role"], admin["managed"]) == ("tests", "admin", False)


async def test_each_change_is_in_the_audit_with_who_and_from_where(database_url: str) -> None:
    async with open_service(database_url) as room:
        await create(room, role="read-own")
        await call(room, "POST", f"{TOKENS}/shop/rotate")
        await call(room, "DELETE", f"{TOKENS}/shop")
        await call(room, "DELETE", f"{TOKENS}/shop")
        entries = sorted(await rows(room, audit), key=lambda row: row["action"])
        assert [row["action"] for row in entries] == ["token.created", "token.revoked", "token.rotated"]
        assert {(row["actor"], row["target"], row["remote_address"]) for row in entries} == {
            ("tests", "shop", "127.0.0.1")
        }
        assert all(row["request_id"].startswith("req_") for row in entries)
        assert entries[0]["detail"] == "role read-own"
