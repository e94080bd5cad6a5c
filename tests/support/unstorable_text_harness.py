"""The whole service before a Rivya that repeats whatever text it is told to, everywhere that Rivya says anything."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Text, update

import app.main  # noqa: F401 - every table is known by then
from app.core.auth import Role
from app.core.database import metadata
from app.core.settings import load
from app.endpoint.repository import endpoints
from app.ledger.tables import polls
from app.main import Service
from app.ratelimit.limiter import poll_budget
from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign
from tests.support.asgi_service import TOKENS
from tests.support.clock import ManualClock
from tests.support.intake_harness import SECRET
from tests.support.receivers import environment
from tests.support.scripted_provider import Upstream, answering, scripted

MARK = "mark"
SCHEME = parse_scheme(f"timestamped;signature={MARK}-signature")


def text_columns() -> set[str]:
    """Every column that holds text, as `table.column`."""
    return {
        str(column) for table in metadata.sorted_tables for column in table.columns if isinstance(column.type, Text)
    }


@dataclass
class UnstorableTextHarness:
    service: Service
    client: httpx.AsyncClient
    rivya: Upstream
    repeated: str = ""
    """What Rivya says everywhere, as JSON without its quotes."""
    status: str = "200 OK"

    async def answer(self, writer: asyncio.StreamWriter) -> None:
        """What Rivya answers."""
        text, asked = self.repeated, self.rivya.heard[-1]
        whole = (
            f'"id":"{text}","status":"queued","model":"{text}","client_request_id":"{text}","error":{{"m":"{text}"}}'
        )
        body = f'{{"error":{{"code":"{text}","message":"{text}","requestId":"{text}"}}}}'
        if self.status.startswith("200"):
            body = f"{{{whole}}}"
            if asked.target.startswith("/api/v1/webhooks"):
                url = json.loads(asked.body)["url"] if asked.method == "POST" else ""
                body = f'{{"id":"whend_{text}","url":"{url}","status":"active","signing_secret":"{SECRET}"}}'
                body = body if asked.method == "POST" else '{"object":"list","data":[]}'
        await answering(body.encode(), status=self.status, Content_Type="application/json")(writer)

    async def deliver(self, body: bytes, **more: str) -> httpx.Response:
        """Signed in a way that names its header by a word of the test's."""
        signed = sign(SCHEME, SECRET, body, timestamp=datetime.now(UTC), event_id="x")
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*signed, *more.items())]
        return await self.client.post("/rivya/webhook", content=body, headers=headers)

    async def rows(self) -> dict[str, list[Any]]:
        """What every text column holds."""
        held: dict[str, list[Any]] = {}
        async with self.service.database.read() as connection:
            for table in metadata.sorted_tables:
                rows = (await connection.execute(table.select())).mappings().all()
                held |= {str(column): [row[column.name] for row in rows] for column in table.columns}
        return {name: held[name] for name in text_columns()}

    async def polled(self) -> None:
        """Everything open is asked for at once."""
        async with self.service.database.transaction() as connection:
            due = update(polls).where(polls.c.next_poll_at.is_not(None))
            long_ago = datetime.now(UTC) - timedelta(days=1)
            await connection.execute(due.values(next_poll_at=long_ago))
            free = {"stopped_status": None, "stopped_until": None, "blocked_until": None, "next_slot_at": long_ago}
            await connection.execute(update(poll_budget).values(**free))
        await self.service.poller.run_once()
        await self.service.poller.idle()

    async def registered(self) -> None:
        """A registration, from the beginning."""
        async with self.service.database.transaction() as connection:
            await connection.execute(update(endpoints).values(state="retired"))
        self.service.reconciler._failed_until = 0.0  # whatever it waited for is over
        await self.service.reconciler.run_once()


@asynccontextmanager
async def unstorable_room(
    monkeypatch: pytest.MonkeyPatch, url: str, **changes: str
) -> AsyncIterator[UnstorableTextHarness]:
    """A service, ready, whose poll rate is no hindrance."""
    tokens = ",".join(f"{role}:{role}:{token}" for role, token in TOKENS.items())
    room: UnstorableTextHarness | None = None

    async def script(writer: asyncio.StreamWriter) -> None:
        assert room is not None
        await room.answer(writer)

    async with AsyncExitStack() as stack:
        rivya = await stack.enter_async_context(scripted(script))
        for name, value in environment(rivya.url, url, 8000, RECEIVER_API_TOKENS=tokens, **changes).items():
            monkeypatch.setenv(name, value)
        service = Service(load(), ManualClock(datetime.now(UTC)))  # it stands still: no poll comes after its slot
        stack.push_async_callback(service.close)
        await service.prepare()
        await service.batch.start()
        stack.push_async_callback(service.batch.stop)
        stack.push_async_callback(service.poller.stop)
        stack.push_async_callback(service.submissions.stop)
        headers = {"Authorization": f"Bearer {TOKENS[Role.ADMIN]}"}
        transport = httpx.ASGITransport(service.app)
        client = httpx.AsyncClient(transport=transport, base_url="http://receiver", headers=headers)
        room = UnstorableTextHarness(service, await stack.enter_async_context(client), rivya)
        yield room
