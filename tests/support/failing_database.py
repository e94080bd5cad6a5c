"""A receiver whose database is about to fail: deliveries of ours, and a proxy that can swallow a commit's answer."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
from sqlalchemy import select

from app.core.database import Database
from app.ledger.tables import deliveries, transitions
from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign
from app.sandbox.server import ServedSandbox, serve_sandbox
from tests.soak.fleet import Fleet, fleet
from tests.support.fork_client import fork_server
from tests.support.run_counts import RunCounts, counted

SECRET = "whsec_0123456789abcdef0123456789abcdef"
SCHEME = parse_scheme("timestamped")
RECOVERY = 5.0
"""Seconds from the end of a fault until deliveries are taken again."""
TRIES = 2
"""A delivery whose commit got no answer is recorded once more, on the ordinary way."""


@dataclass
class Failing:
    """One receiver, its secret given by hand, so that deliveries need nothing but its database's writes."""

    replicas: Fleet
    rivya: ServedSandbox
    client: httpx.AsyncClient
    faults: int = 0
    """How often deliveries were no longer taken."""
    sent: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    """By event id: how often it was sent, and answered 200."""
    _number: int = 0
    _is_well: bool = False

    async def deliver(self, event_id: str | None = None) -> httpx.Response:
        """A fresh event, or that one again."""
        self._number += 1
        event_id = event_id or f"evt_{self._number}"
        generation = {"id": f"task_{event_id}", "status": "succeeded", "model": "z-image"}
        body = orjson.dumps({"id": event_id, "type": "generation.succeeded", "data": generation})
        headers = sign(SCHEME, SECRET, body, timestamp=self.rivya.sandbox.clock.now(), event_id=event_id)
        self.sent[event_id] += 1
        answer = await self.client.post("/rivya/webhook", content=body, headers=headers)
        is_taken = answer.status_code == 200
        self.accepted[event_id] += is_taken
        self.faults += self._is_well and not is_taken
        self._is_well = is_taken
        return answer

    async def refused(self, count: int = 4) -> None:
        """Deliveries are told to come again, and nothing else."""
        answers = await asyncio.gather(*(self.deliver() for _ in range(count)))
        assert {answer.status_code for answer in answers} == {503}, [answer.text for answer in answers]
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)

    async def recovered(self) -> float:
        """Seconds until a delivery was taken; raises after 5."""
        started = asyncio.get_running_loop().time()
        async with asyncio.timeout(RECOVERY):
            while (await self.deliver()).status_code != 200:
                await self.wait_briefly()
        return asyncio.get_running_loop().time() - started

    async def polled(self) -> None:
        """The poller lives: what Rivya never calls back about is found."""
        async with asyncio.timeout(20):
            generation_id = await self._created()
            while (await self._status(generation_id)) != "succeeded":
                await self.wait_briefly()

    async def recorded_counts(self) -> RunCounts:
        """Whatever was answered 2xx has its row and its one transition; the process is the one that was started."""
        database = Database(self.replicas.database_url)
        try:
            async with database.read() as connection:
                rows = await connection.execute(select(deliveries.c.event_id, deliveries.c.attempts))
                recorded = {row.event_id: row.attempts for row in rows if row.event_id in self.sent}
                of_events = select(transitions.c.event_id).where(transitions.c.event_id.in_(recorded))
                steps = (await connection.execute(of_events)).scalars().all()
        finally:
            await database.dispose()
        assert len(steps) == len(set(steps))
        assert "Traceback" not in self.replicas.log(), self.replicas.log()
        return counted(self.sent, self.accepted, recorded, faults=self.faults, tries=TRIES)

    async def _created(self) -> str:
        """A create; each connection that had died in the pool may still cost one 503."""
        options = {"seconds": 0.1, "callback": "drop"}
        body = {"model": "z-image", "prompt": "a fox", "params": {"sandbox": options}}
        headers = {"Idempotency-Key": f"order-{self._number}"}
        while True:
            answer = await self.client.post("/api/v1/generations", json=body, headers=headers)
            if answer.status_code == 200:
                return str(answer.json()["id"])
            assert answer.status_code == 503, answer.text
            await self.wait_briefly()

    async def wait_briefly(self) -> None:
        """Leave the processor to who is asked, for as long as nobody notices."""
        await self.replicas.watch(self.replicas.ports[0], seconds=0.02)

    async def _status(self, generation_id: str) -> Any:
        return (await self.client.get(f"/api/v1/generations/{generation_id}")).json().get("status")


@asynccontextmanager
async def failing(url: str, directory: Path, **changes: str) -> AsyncIterator[Failing]:
    """One receiver process on the database at `url`; at the end, what was answered is compared with what is there."""
    changes = {"RIVYA_SIGNING_SECRET": SECRET, "RIVYA_SIGNATURE_SCHEME": "timestamped", **changes}
    async with (
        fork_server() as parent,
        serve_sandbox() as rivya,
        fleet(parent, rivya, url, directory, size=1, **changes) as replicas,
    ):
        base = f"http://127.0.0.1:{replicas.ports[0]}"
        headers = {"Authorization": "Bearer 0123456789abcdef0123456789abcdef"}
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=40) as client:
            failing_service = Failing(replicas, rivya, client)
            yield failing_service
            await failing_service.recorded_counts()


@dataclass
class Swallowing:
    """A TCP proxy before PostgreSQL that, when armed, passes a write on and drops the connection before its answer.

    The write of a delivery commits by itself; it is told by the event id within a JSON text.
    """

    target: int
    port: int = 0
    is_armed: bool = False
    swallowed: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.target)
        cut = asyncio.Event()

        async def forward() -> None:
            while data := await reader.read(65536):
                if self.is_armed and b'"evt_lost_' in data:
                    self.is_armed, self.swallowed = False, self.swallowed + 1
                    cut.set()
                back_writer.write(data)
            back_writer.close()

        async def backward() -> None:
            while data := await back_reader.read(65536):
                if cut.is_set():
                    break
                writer.write(data)
            writer.close()

        with suppress(OSError):
            await asyncio.gather(forward(), backward())


@asynccontextmanager
async def swallowing(target: int) -> AsyncIterator[Swallowing]:
    """Such a proxy, on a port of its own."""
    proxy = Swallowing(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
