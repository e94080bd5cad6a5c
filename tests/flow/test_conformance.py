"""The documented calls, made once straight at Rivya and once through the receiver, are answered alike."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox
from tests.support.receivers import receiver

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
ORDER = {"model": "z-image", "prompt": "a fox", "client_request_id": "mine"}
TURN = {"model": "gpt-5-2-chat", "message": "hello fox", "client_request_id": "mine"}
ID = re.compile(r"\b(?:task|file|chatcmpl|msg|chat|req)_[0-9a-f]{24}\b")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ADDED = ("tracking", "metadata")


@dataclass
class Side:
    """One way to Rivya, and all that was answered on it, made comparable."""

    sandbox: Sandbox
    client: httpx.AsyncClient
    wait: str
    exchanges: list[tuple[str, int, str | None, str]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Make a call whose answer must be the same to the byte, but for the ids and times that are new each time."""
        answer = await self.client.request(method, f"/api/v1{path}", **request)
        self._note(f"{method} {path}", answer, answer.text)
        return answer

    async def ask_for_generation(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """Make a call whose answer has members of ours, too."""
        answer = await self.client.request(method, f"/api/v1{path}", **request)
        generation: dict[str, Any] = answer.json()
        self._note(
            f"{method} {path}",
            answer,
            str({name: generation[name] for name in sorted(generation) if name not in ADDED}),
        )
        return generation

    async def ask_in_vain(self, method: str, path: str, **request: Any) -> None:
        """Make a call that the receiver refuses in words of its own."""
        answer = await self.client.request(method, f"/api/v1{path}", **request)
        error = answer.json()["error"]
        self._note(f"{method} {path}", answer, f"{error['code']} {sorted(error)}")

    def _note(self, call: str, answer: httpx.Response, text: str) -> None:
        content_type = answer.headers.get("content-type")
        self.exchanges.append((self._comparable(call), answer.status_code, content_type, self._comparable(text)))

    def _comparable(self, text: str) -> str:
        def name(match: re.Match[str]) -> str:
            kind = match[0].split("_")[0]
            # A request id is new each time: it has to be there, and tells nothing.
            return "req" if kind == "req" else self.names.setdefault(match[0], f"{kind}-{len(self.names)}")

        return TIME.sub("time", ID.sub(name, text))


async def catalogue_and_credits(side: Side) -> None:
    await side.ask("GET", "/models")
    await side.ask("GET", "/credits")


async def generations(side: Side) -> None:
    key = {"Idempotency-Key": "order-1"}
    for status in ("succeeded", "failed"):
        created = await side.ask_for_generation("POST", "/generations", json={**ORDER, "prompt": status})
        path = f"/generations/{created['id']}"
        await side.ask_for_generation("GET", path)
        await side.sandbox.settle(created["id"], status)
        await side.client.get(f"/api/v1{path}{side.wait}")
        await side.ask_for_generation("GET", path)
    await side.ask_for_generation("POST", "/generations", json=ORDER, headers=key)
    await side.ask_for_generation("POST", "/generations", json=ORDER, headers=key)
    await side.ask_in_vain("POST", "/generations", json={**ORDER, "prompt": "other"}, headers=key)
    await side.ask_in_vain("POST", "/generations", json={"prompt": "no model"})
    await side.ask_in_vain("POST", "/generations", json={"model": "gpt-5-2-chat"})
    await side.ask_in_vain("GET", "/generations/task_unknown")


async def upload(side: Side, content: bytes = PNG, *, kind: str = "image") -> httpx.Response:
    return await side.ask("POST", "/files", data={"kind": kind, "model": "z"}, files={"file": ("fox.png", content)})


async def files(side: Side) -> None:
    file_id = (await upload(side)).json()["file_id"]
    await side.ask("GET", f"/files/{file_id}")
    await side.ask("GET", "/files/file_unknown")
    await upload(side, b"no picture")
    await upload(side, kind="document")
    await side.ask("POST", "/files", json={"kind": "image"})
    await side.ask("POST", "/chat/completions", json={**TURN, "attachments": [{"file_id": file_id}]})


async def chat(side: Side) -> None:
    path, key = "/chat/completions", {"Idempotency-Key": "turn-1"}
    session_id = (await side.ask("POST", path, json=TURN, headers=key)).json()["session_id"]
    await side.ask("POST", path, json=TURN, headers=key)
    await side.ask("POST", path, json={**TURN, "message": "other"}, headers=key)
    await side.ask("POST", path, json={**TURN, "session_id": session_id, "reasoning_effort": "high"})
    await side.ask("POST", path, json={**TURN, "session_id": session_id, "model": "sandbox-chat"})
    for wrong in ({"model": "z-image"}, {"message": None}, {"session_id": "chat_unknown"}, {"reasoning_effort": "x"}):
        await side.ask("POST", path, json={**TURN, **wrong})
    await side.ask("POST", path, content=b"{not json", headers={"Content-Type": "application/json"})
    await side.ask("GET", "/chat/sessions")
    await side.ask("GET", "/chat/sessions?limit=1")
    await side.ask("GET", f"/chat/sessions/{session_id}")
    await side.ask("GET", "/chat/sessions/chat_unknown")


async def streams(side: Side) -> None:
    for dialect in ("named", "chunks", "crlf"):
        side.sandbox.settings.stream_dialect = dialect
        await side.ask("POST", "/chat/completions/stream", json={**TURN, "enable_web_search": True})
    await side.ask("POST", "/chat/completions/stream", json={**TURN, "model": "z-image"})


async def poverty(side: Side) -> None:
    side.sandbox.accounts.set_balance("default", 0)
    await side.ask("GET", "/credits")
    await side.ask("POST", "/chat/completions", json=TURN)
    await side.ask("POST", "/chat/completions/stream", json=TURN)
    await side.ask_in_vain("POST", "/generations", json=ORDER)


async def strangers(side: Side) -> None:
    for token, path in (("", "/credits"), ("Bearer nobody-gave-me-this-token", "/chat/sessions")):
        await side.ask_in_vain("GET", path, headers={"Authorization": token})


async def documented_calls(side: Side) -> list[tuple[str, int, str | None, str]]:
    for part in (catalogue_and_credits, generations, files, chat, streams, strangers, poverty):
        await part(side)
    return side.exchanges


@asynccontextmanager
async def sandbox() -> AsyncIterator[tuple[Sandbox, str]]:
    settings = SandboxSettings(stream_pause=0)
    async with serve_sandbox(Sandbox(manual=True, settings=settings)) as rivya:
        yield rivya.sandbox, rivya.base_url


async def answers_of_rivya() -> list[tuple[str, int, str | None, str]]:
    headers = {"Authorization": f"Bearer {DEFAULT_KEY}"}
    async with sandbox() as (rivya, url), httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        return await documented_calls(Side(rivya, client, wait=""))


async def answers_of_the_receiver(database_url: str, directory: Path) -> list[tuple[str, int, str | None, str]]:
    async with sandbox() as (rivya, url), receiver(url, database_url, directory) as service:
        return await documented_calls(Side(rivya, service.client, wait="?wait=30"))


async def test_every_documented_call_is_answered_as_rivya_answers_it(empty_database_url: str, tmp_path: Path) -> None:
    straight = await answers_of_rivya()
    through = await answers_of_the_receiver(empty_database_url, tmp_path)
    assert len(straight) > 40
    for expected, answered in zip(straight, through, strict=True):
        assert answered == expected


async def test_what_the_receiver_adds_to_a_generation_is_named(sqlite_url: str, tmp_path: Path) -> None:
    async with sandbox() as (rivya, url), receiver(url, sqlite_url, tmp_path) as service:
        created = (await service.client.post("/api/v1/generations", json=ORDER)).json()
        headers = {"Authorization": f"Bearer {DEFAULT_KEY}"}
        theirs = (await service.client.get(f"{url}/api/v1/generations/{created['id']}", headers=headers)).json()
        assert set(created) - set(theirs) == set(ADDED)
        assert {name: created[name] for name in theirs} == theirs
        assert rivya.calls.counts["generations.create"] == 1
