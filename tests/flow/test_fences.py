"""Fenced tokens see and change only what they submitted or tracked, in every route of the OpenAPI document."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.models import Claim
from app.ledger.models import Report, Source
from app.ledger.sql import MOST_WALKED_FENCED
from app.sandbox.server import serve_sandbox
from tests.support.clock import NOON
from tests.support.receivers import TOKEN, receiver
from tests.support.reports import webhook
from tests.support.service_harness import ServiceHarness, open_service

TOKENS = f"tests:admin:{TOKEN}," + ",".join(
    f"{name}:{role}:a-token-of-{name}-00000"
    for name, role in {"alice": "write-own", "bob": "write-own", "eve": "read-own", "all": "write"}.items()
)
BODY = {"model": "z-image", "prompt": "a river"}
NOT_ABOUT_GENERATIONS = {
    "/api/v1/models",
    "/api/v1/models/{model_id}",
    "/api/v1/credits",
    "/api/v1/endpoint",
    "/livez",
    "/readyz",
    "/metrics",
}
"""What every role reads: the catalogue, the account's credits, the state of the endpoint, health."""


@dataclass
class Fenced:
    room: ServiceHarness
    alices: str
    """A generation of Alice's, settled by a delivery."""

    async def ask(self, name: str, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer a-token-of-{name}-00000", **options.pop("headers", {})}
        return await self.room.client.request(method, f"/api/v1/{path}", headers=headers, **options)

    async def ids(self, name: str, query: str = "") -> list[str]:
        answer = await self.ask(name, "GET", f"generations{query}")
        return [item["id"] for item in answer.json()["data"]]


@asynccontextmanager
async def fenced(url: str) -> AsyncIterator[Fenced]:
    async with open_service(url, RECEIVER_API_TOKENS=TOKENS) as room:
        it = Fenced(room, "")
        created = await it.ask("alice", "POST", "generations", json=BODY, headers={"Idempotency-Key": "order-1"})
        it.alices = created.json()["id"]
        await room.record(webhook(it.alices, "succeeded", event_id="evt_alice", at=room.clock.now()))
        room.pass_time(minutes=1)
        yield it


async def test_no_route_shows_or_changes_what_is_anothers(database_url: str) -> None:
    async with fenced(database_url) as it:
        paths = it.room.service.app.openapi()["paths"]
        tried = set()
        for path, methods in paths.items():
            for method in set(methods) & {"get", "put", "patch", "post", "delete"}:
                if path in NOT_ABOUT_GENERATIONS:
                    continue
                asked = path.removeprefix("/api/v1/")
                for name, value in {"generation_id": it.alices, "event_id": "evt_alice"}.items():
                    asked = asked.replace(f"{{{name}}}", value)
                for reader in ("bob", "eve"):
                    answer = await it.ask(reader, method.upper(), asked)
                    tried.add(path)
                    assert it.alices not in answer.text, (reader, method, path, answer.text)
                    assert "evt_alice" not in answer.text, (reader, method, path)
                    assert "alice" not in answer.text.replace(asked, ""), (reader, method, path, answer.text)
        assert len(tried) >= 20
        assert (await it.ask("alice", "GET", f"generations/{it.alices}")).json()["metadata"] is None


async def test_an_own_generation_is_shown_wherever_it_is_asked_for(database_url: str) -> None:
    async with fenced(database_url) as it:
        for name in ("alice", "all"):
            assert await it.ids(name) == await it.ids(name, "?status=succeeded") == [it.alices]
            for path in (f"generations/{it.alices}", f"generations/{it.alices}?wait=1", "deliveries/evt_alice"):
                assert (await it.ask(name, "GET", path)).status_code == 200
            history = await it.ask(name, "GET", f"generations/{it.alices}/transitions")
            assert [step["to"] for step in history.json()["data"]] == ["queued", "succeeded"]
            deliveries = await it.ask(name, "GET", "deliveries")
            assert [each["event_id"] for each in deliveries.json()["data"]] == ["evt_alice"]
            usage = await it.ask(name, "GET", "usage")
            assert [line["generations"] for line in usage.json()["data"]] == [1]
            events = (await it.ask(name, "GET", "events")).json()["data"]
            assert [event["generation"]["id"] for event in events] == [it.alices] * 2
        for name in ("bob", "eve"):
            assert (await it.ask(name, "GET", "events")).json()["data"] == []
            assert await it.ids(name) == await it.ids(name, "?submitted_by=alice") == []
            assert (await it.ask(name, "GET", "usage")).json()["data"] == []
            assert (await it.ask(name, "GET", "deliveries")).json()["data"] == []


@pytest.mark.parametrize("fast_path", ["true", "false"])
async def test_a_served_process_fences_reads_and_waits_on_the_fast_path_and_without_it(
    database_url: str, tmp_path: Path, fast_path: str
) -> None:
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, database_url, tmp_path, RECEIVER_FAST_PATH=fast_path) as service,
    ):
        headers = {}
        for name, role in (("alice", "write-own"), ("bob", "read-own"), ("all", "read")):
            created = await service.client.post("/api/v1/tokens", json={"name": name, "role": role})
            headers[name] = {"Authorization": f"Bearer {created.json()['token']}"}
        answer = await service.client.post("/api/v1/generations", json=BODY, headers=headers["alice"])
        path = f"/api/v1/generations/{answer.json()['id']}"
        await service.client.get(f"{path}?wait=20")
        for query in ("", "?wait=0", "?wait=1", "?wait=0.5"):
            answers = {name: await service.client.get(path + query, headers=headers[name]) for name in headers}
            assert {name: answer.status_code for name, answer in answers.items()} == {
                "alice": 200,
                "bob": 404,
                "all": 200,
            }
            assert answers["alice"].content == answers["all"].content
            unknown = await service.client.get(f"/api/v1/generations/unknown{query}", headers=headers["bob"])
            assert unknown.json()["error"]["message"] == answers["bob"].json()["error"]["message"]


async def test_what_is_anothers_is_answered_like_what_does_not_exist(database_url: str) -> None:
    async with fenced(database_url) as it:
        for method, path in (
            ("GET", "generations/{}"),
            ("GET", "generations/{}?wait=5"),
            ("GET", "generations/{}/transitions"),
        ):
            answers = [await it.ask("bob", method, path.format(each)) for each in (it.alices, "unknown")]
            assert [(each.status_code, each.json()["error"]["message"]) for each in answers] == [
                (404, "The receiver knows no generation with this id.")
            ] * 2
        tracked = await it.ask("bob", "PUT", f"generations/{it.alices}", json={"metadata": {"a": 1}})
        assert (tracked.status_code, tracked.json()["error"]["code"]) == (404, "not_found")
        assert (await it.ask("all", "GET", f"generations/{it.alices}")).json()["metadata"] is None
        assert (await it.ask("eve", "PUT", "generations/g")).status_code == 403


async def test_whoever_tracks_what_is_nobodys_has_it_and_others_do_not(database_url: str) -> None:
    async with fenced(database_url) as it:
        await it.room.record(webhook("made_elsewhere", "succeeded", at=it.room.clock.now()))
        assert (await it.ask("bob", "GET", "generations/made_elsewhere")).status_code == 404
        assert (await it.ask("bob", "PUT", "generations/made_elsewhere", json={"metadata": {"a": 1}})).is_success
        assert (await it.ask("bob", "PUT", "generations/new")).status_code == 201
        assert sorted(await it.ids("bob")) == ["made_elsewhere", "new"]
        assert await it.ids("bob", "?tracking=watching") == ["new"]
        assert (await it.ask("alice", "PUT", "generations/new")).status_code == 404
        assert await it.ids("alice") == [it.alices]
        deliveries = await it.ask("bob", "GET", "deliveries")
        assert [each["generation_id"] for each in deliveries.json()["data"]] == ["made_elsewhere"]


async def test_pages_of_own_deliveries_leave_out_others_and_come_to_an_end(database_url: str) -> None:
    async with fenced(database_url) as it:
        times = range(1, MOST_WALKED_FENCED + 10)
        others = [webhook(f"g{n}", "succeeded", at=NOON.replace(microsecond=n)) for n in times]
        for start in range(0, len(others), 200):
            await it.room.record(*others[start : start + 200])
        first = (await it.ask("alice", "GET", "deliveries?limit=2")).json()
        assert first["data"] == []
        second = (await it.ask("alice", "GET", f"deliveries?limit=2&cursor={first['next_cursor']}")).json()
        assert [each["event_id"] for each in second["data"]] == ["evt_alice"]
        assert second["next_cursor"] is None
        stolen = await it.ask("bob", "GET", f"deliveries?limit=2&cursor={first['next_cursor']}")
        assert stolen.status_code == 400


async def test_a_fenced_report_that_loses_the_race_changes_nothing(database_url: str) -> None:
    async with fenced(database_url) as it:
        claim = Claim(it.alices, "queued")
        report = Report(
            source=Source.OPERATOR,
            reported_at=NOON,
            claim=claim,
            token="bob",
            metadata={"a": 1},
            is_fenced=True,
        )
        await it.room.record(report)
        assert (await it.ask("alice", "GET", f"generations/{it.alices}")).json()["metadata"] is None


async def test_a_key_that_another_used_tells_a_fenced_token_nothing(database_url: str) -> None:
    async with fenced(database_url) as it:
        again = {"json": BODY, "headers": {"Idempotency-Key": "order-1"}}
        assert (await it.ask("alice", "POST", "generations", **again)).json()["id"] == it.alices
        assert (await it.ask("all", "POST", "generations", **again)).json()["id"] == it.alices
        refused = await it.ask("bob", "POST", "generations", **again)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "idempotency_conflict")


async def test_a_fenced_token_does_not_reach_the_chat_sessions_and_files_that_all_share(database_url: str) -> None:
    async with fenced(database_url) as it:
        turn = {"model": "gpt-5-2-chat", "message": "hello"}
        session = (await it.ask("alice", "POST", "chat/completions", json=turn)).json()["session_id"]
        form: dict[str, Any] = {"files": {"file": ("fox.png", PIXEL, "image/png")}, "data": {"kind": "image"}}
        file = (await it.ask("alice", "POST", "files", **form)).json()["file_id"]
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "chat/sessions", {}),
            ("GET", f"chat/sessions/{session}", {}),
            ("GET", f"files/{file}", {}),
            ("POST", "chat/completions", {"json": {**turn, "session_id": session}}),
            ("POST", "chat/completions/stream", {"json": {**turn, "session_id": session}}),
            ("POST", "chat/completions", {"json": {**turn, "attachments": [{"file_id": file}]}}),
        ]
        for method, path, options in calls:
            refused = await it.ask("bob", method, path, **options)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "api_scope_denied")
        for method, path, options in calls[:4]:
            assert (await it.ask("all", method, path, **options)).status_code == 200


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da63fccf500f00038601805a347d6b0000000049454e44ae426082"
)
