"""A whole service whose programs have webhooks, and a receiver of theirs that a test scripts."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from app.ledger.models import Report
from tests.support.receivers import TOKEN
from tests.support.scripted_provider import Heard, Script, Upstream, answering, scripted
from tests.support.service_harness import ServiceHarness, open_service

ROLES = {"shop": "write", "other": "write", "alice": "write-own", "bob": "write-own", "eve": "read"}
TOKENS = f"tests:admin:{TOKEN}," + ",".join(f"{name}:{role}:a-token-of-{name}-00000" for name, role in ROLES.items())
OK = answering(b"thanks")


@dataclass
class Programs:
    """`name` is that of a token."""

    room: ServiceHarness
    receiver: Upstream

    async def ask(self, name: str, method: str, path: str, **options: Any) -> httpx.Response:
        token = TOKEN if name == "tests" else f"a-token-of-{name}-00000"
        headers = {"Authorization": f"Bearer {token}"}
        return await self.room.client.request(method, f"/api/v1/{path}", headers=headers, **options)

    async def webhook(self, name: str = "shop", **changes: Any) -> dict[str, Any]:
        """Create an endpoint; what Rivya documents of its answer, and more."""
        body = {"name": "Production webhook", "url": f"{self.receiver.url}/hook", **changes}
        answer = await self.ask(name, "POST", "webhooks", json=body)
        assert answer.status_code == 201, answer.text
        endpoint: dict[str, Any] = answer.json()
        return endpoint

    async def shown(self, endpoint: dict[str, Any], name: str = "tests") -> dict[str, Any]:
        """The endpoint as it is now."""
        answer = await self.ask(name, "GET", f"webhooks/{endpoint['id']}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def notifications(self, name: str = "tests", **parameters: Any) -> list[dict[str, Any]]:
        """Oldest first."""
        answer = await self.ask(name, "GET", "notifications", params=parameters)
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["data"]
        return rows[::-1]

    async def record(self, *reports: Report) -> None:
        await self.room.record(*reports)

    async def dispatch(self) -> None:
        """Write the notifications of what has happened."""
        self.room.service.dispatcher.wake()
        await self.room.service.dispatcher.run_once()

    async def send(self) -> list[Heard]:
        """Send what is due, until nothing more is; what the receiver heard."""
        before, sender = len(self.receiver.heard), self.room.service.notification_sender
        while True:
            sender.wake()
            await sender.run_once()
            if not sender.under_way:
                return self.receiver.heard[before:]
            await sender.idle()

    async def deliver(self, *reports: Report) -> list[Heard]:
        """Record reports and send what is to be sent of them."""
        await self.record(*reports)
        await self.dispatch()
        return await self.send()


@asynccontextmanager
async def programs(url: str, *scripts: Script, **changes: str) -> AsyncIterator[Programs]:
    """The receiver answers with `scripts`, else 200."""
    settings = {"RECEIVER_API_TOKENS": TOKENS, "RECEIVER_NOTIFY_ALLOW": "127.0.0.1", **changes}
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(scripted(*(scripts or (OK,))))
        room = await stack.enter_async_context(open_service(url, goes_by=None, **settings))
        stack.push_async_callback(room.service.notification_sender.stop)
        yield Programs(room, receiver)
