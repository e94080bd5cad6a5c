"""A Rivya that lies, next to what it really did: one replica's intake and poller on a clock that tests move by hand."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import Route

from app.core.middleware import RequestContextMiddleware
from app.intake.rejections import Rejections
from app.intake.webhook import Intake
from app.ledger.tables import generations, transitions
from app.polling.schedule import LONGEST_GAP
from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign
from app.sandbox.delivery import DeliveryClient
from app.sandbox.webhooks import Endpoint
from tests.support.intake_harness import PROBE_KEY, Noted, Secrets
from tests.support.polling_harness import GRACE, PollingHarness, Replica, open_polling

SCHEME = parse_scheme("timestamped")
LONGEST = GRACE + 2 * LONGEST_GAP * 1.2 + timedelta(minutes=5)
"""From the end of all faults to the outcome: the grace, two intervals at their longest, one probe of a refused key."""

CALLBACKS: list[dict[str, Any]] = [
    {},
    {"drop": True},
    {"delay": 45.0},
    {"duplicate": 2},
    {"reorder": True},
    {"forge": True},
    {"contradict": True},
    {"corrupt": True},
    {"skew": 600.0},
    {"skew": -600.0},
]
"""What may become of a callback."""


class IntoIntake(DeliveryClient):
    """What carries the sandbox's deliveries, without a socket between."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.statuses: list[int] = []

    async def post(self, url: str, body: bytes, *, headers: dict[str, str], timeout_seconds: float) -> int:
        """The status of intake's answer."""
        answer = await self._client.post("/rivya/webhook", content=body, headers=headers)
        self.statuses.append(answer.status_code)
        return answer.status_code

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class FaultyProvider:
    """The state of the sandbox is what really happened, whatever its answers say."""

    room: PollingHarness
    replica: Replica
    endpoint: Endpoint
    carrier: IntoIntake
    ids: list[str] = field(default_factory=list)

    async def deliver(self, body: bytes) -> int:
        """Any bytes, properly signed."""
        at = self.room.clock.now()
        headers = dict(sign(SCHEME, self.endpoint.secret, body, timestamp=at, event_id="evt_x"))
        return await self.carrier.post("", body, headers=headers, timeout_seconds=1)

    async def create(self) -> None:
        """One more generation that Rivya works on."""
        self.ids += await self.room.submit(self.replica)

    async def end(self, number: int, status: Any) -> None:
        """A generation really comes to its end, if it has not."""
        if not self.ids:
            return
        generation_id = self.ids[number % len(self.ids)]
        if not self.room.sandbox.generations.by_id[generation_id].is_terminal:
            await self.room.sandbox.settle(generation_id, status)

    async def claim(self, number: int, members: dict[str, Any]) -> int:
        """A signed event about one of them that is no report of its end."""
        about = {"id": self.ids[number % len(self.ids)] if self.ids else "task_none", **members}
        event = {"id": f"evt_{number}", "type": "generation.changed", "data": about}
        return await self.deliver(json.dumps(event).encode())

    async def behave(self) -> timedelta:
        """All faults end, every generation comes to its end; how long until the record knew."""
        sandbox, started = self.room.sandbox, self.room.clock.now()
        sandbox.faults.clear()
        for generation_id in self.ids:
            if not sandbox.generations.by_id[generation_id].is_terminal:
                await sandbox.settle(generation_id)
        while open_ones := [row for row in await self._rows() if row["tracking"] != "settled"]:
            due = min(row["next_poll_at"] for row in open_ones) - self.room.clock.now()
            self.room.clock.advance(seconds=max(due.total_seconds(), 1.0))
            await self.replica.poll()
            assert self.room.clock.now() - started <= LONGEST, open_ones
        await sandbox.advance(3600)  # what was delayed comes at last, and changes nothing
        return self.room.clock.now() - started

    async def record(self) -> dict[str, str]:
        """What we know."""
        return {row["id"]: row["status"] for row in await self._rows()}

    def truth(self) -> dict[str, str]:
        """What really happened."""
        return {generation_id: self.room.sandbox.generations.by_id[generation_id].status for generation_id in self.ids}

    async def missed(self) -> int:
        """Outcomes that a poll had to find."""
        return sum(row["settled_by"] == "poll" and row["callback_received_at"] is None for row in await self._rows())

    async def is_legal(self) -> bool:
        """Every history begins with nothing, goes forward step by step, and ends at most once."""
        last: dict[str, tuple[int, str]] = {}
        for step in await self.replica.rows(transitions):
            number, before = last.get(step["generation_id"], (0, None))
            if (step["number"], step["from_status"]) != (number + 1, before) or before in ("succeeded", "failed"):
                return False
            last[step["generation_id"]] = (step["number"], step["to_status"])
        return True

    async def _rows(self) -> list[dict[str, Any]]:
        return [row for row in await self.replica.rows(generations) if row["id"] in self.ids]


@asynccontextmanager
async def faulty_provider(url: str) -> AsyncIterator[FaultyProvider]:
    """One replica, one endpoint, everything in this process but the database and Rivya's API."""
    async with open_polling(url) as room:
        replica = await room.replica(rate=100.0)
        endpoint = room.sandbox.endpoints.create("default", {"url": "http://127.0.0.1:1/rivya/webhook"})
        keyring = Secrets(endpoint.secret)
        keyring.clock = room.clock
        intake = Intake(
            keyring,
            Noted(),
            Rejections(replica.database),
            replica.batch.record,
            clock=room.clock,
            most_bytes=65536,
            probed=PROBE_KEY.answer,
        )
        app = RequestContextMiddleware(Starlette(routes=[Route("/rivya/webhook{tail:path}", intake)]))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://receiver") as client:
            carrier = IntoIntake(client)
            room.sandbox.sender.client = carrier
            yield FaultyProvider(room, replica, endpoint, carrier)
