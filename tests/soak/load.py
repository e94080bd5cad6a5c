"""Constant load on a receiver that may die at any moment: deliveries, submissions, reads; polls come by themselves."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.sandbox.clock import new_id
from app.sandbox.delivery import Delivery, Event
from app.sandbox.faults import DeliveryFaults
from app.sandbox.state import Sandbox
from tests.soak.account import Account
from tests.soak.pace import until
from tests.support.receivers import TOKEN

CALLBACKS = ("", "", "", "drop", "duplicate:2", "reorder", "delay:0.3", "forge", "early", "corrupt", "skew:-600")
PAUSE = 0.05


@dataclass
class Load:
    """Senders that go on until they are stopped, and write down every answer."""

    sandbox: Sandbox
    url: str
    chance: random.Random
    account: Account = field(default_factory=Account)
    create_seconds: float = 2
    """After so many without an answer to a create the caller hangs up."""
    _number: int = 0
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, *, senders: int = 4) -> None:
        """Until `stop`; every sender finishes what it has begun."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=40) as client:
            turns = [self._submit] * 2 + [self._deliver] * senders + [self._read] * 2
            await asyncio.gather(*(self._repeat(turn, client) for turn in turns))

    def stop(self) -> None:
        """No sender begins anything more."""
        self._over.set()

    async def _repeat(self, turn: Any, client: httpx.AsyncClient) -> None:
        while not self._over.is_set():
            await turn(client)

    async def _ask(self, name: str, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response | None:
        """The answer; None where none came, because the process had died."""
        try:
            answer = await client.send(request)
        except httpx.TransportError:
            self.account.answers[f"{name} 0"] += 1
            await until(self._over, within=PAUSE)
            return None
        self.account.answers[f"{name} {answer.status_code}"] += 1
        if answer.status_code == 500:
            self.account.wrong.append(f"{name} was answered 500")
        if answer.status_code >= 500:
            await until(self._over, within=PAUSE)
        return answer

    async def _submit(self, client: httpx.AsyncClient) -> None:
        """One create, repeated under its key until it is answered or nobody asks any more."""
        self._number += 1
        key = f"order-{self._number}"
        options: dict[str, Any] = {"seconds": self.chance.random() / 2, "fail": self.chance.random() < 0.2}
        options |= {"callback": self.chance.choice(CALLBACKS)}
        body = {"model": "z-image", "prompt": "a red fox", "params": {"sandbox": options}}
        self.account.keys.add(key)
        for _ in range(3):
            request = client.build_request(
                "POST", "/api/v1/generations", json=body, headers={"Idempotency-Key": key}, timeout=self.create_seconds
            )
            answer = await self._ask("create", client, request)
            if answer is not None and answer.is_success:
                self.account.note_created(key, answer.json()["id"])
                return
            if self._over.is_set():
                return

    async def _deliver(self, client: httpx.AsyncClient) -> None:
        """An event about a generation that was made elsewhere; now and then a second time, or contradicted."""
        active = [endpoint for endpoint in self.sandbox.endpoints.by_id.values() if endpoint.status == "active"]
        if not active:
            await until(self._over, within=PAUSE)
            return
        generation_id, status = new_id("task"), self.chance.choice(["succeeded", "failed"])
        event = self._event(generation_id, status, active[0].account)
        path = "/rivya/" + active[0].url.partition("/rivya/")[2]
        is_sent_back = False
        for _ in range(self.chance.choice([1, 1, 1, 2, 3])):
            body, headers = self.sandbox.sender.sign(
                Delivery(event, active[0].id, event.created_at, DeliveryFaults()), active[0]
            )
            self.account.sent[event.id] += 1
            request = client.build_request("POST", path, content=body, headers=headers)
            answer = await self._ask("deliver", client, request)
            if answer is not None and answer.is_success:
                self.account.accepted[event.id] += 1
                is_sent_back = True
        if is_sent_back:
            self.account.truth[generation_id] = status

    def _event(self, generation_id: str, status: str, account: str) -> Event:
        carried = {"id": generation_id, "status": status, "model": "z-image", "result": None, "error": None}
        return Event(new_id("evt"), account, f"generation.{status}", self.sandbox.clock.now(), carried, generation_id)

    async def _read(self, client: httpx.AsyncClient) -> None:
        """A list, and one generation with its history: what was told is still so."""
        known = list(self.account.truth)[-50:]
        generation_id = self.chance.choice(known) if known else None
        path = "/api/v1/generations?limit=5" if generation_id is None else f"/api/v1/generations/{generation_id}"
        answer = await self._ask("read", client, client.build_request("GET", path))
        if answer is None or answer.status_code >= 500:
            return
        self.account.reads += 1
        if generation_id is not None and answer.json().get("status") != self.account.truth[generation_id]:
            self.account.wrong.append(f"{generation_id} was read as {answer.text[:80]}")
        await until(self._over, within=PAUSE / 5)
