"""Real processes on one PostgreSQL: ten start together, and a secret is replaced under load; no delivery is refused."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.sandbox.delivery import Delivery
from app.sandbox.faults import DeliveryFaults
from app.sandbox.server import ServedSandbox, serve_sandbox
from tests.support.fork_client import ForkServer, fork_server
from tests.support.ports import free_port
from tests.support.receivers import TOKEN, environment

SECONDS = 30


@dataclass
class Fleet:
    """Receivers on one database, of which Rivya knows the first one's address."""

    rivya: ServedSandbox
    client: httpx.AsyncClient
    ports: list[int]

    async def deliver(self, port: int) -> int:
        """A delivery signed as Rivya signs now, to one of them; its status, 0 while nobody listens."""
        sandbox = self.rivya.sandbox
        [endpoint] = sandbox.endpoints.by_id.values()
        event = sandbox.publisher.create_event(endpoint.account, "webhook.test", {"message": "hello"})
        delivery = Delivery(event, endpoint.id, sandbox.clock.now(), DeliveryFaults())
        body, headers = sandbox.sender.sign(delivery, endpoint)
        path = endpoint.url.partition("/rivya/")[2]
        try:
            url = f"http://127.0.0.1:{port}/rivya/{path}"
            return (await self.client.post(url, content=body, headers=headers)).status_code
        except httpx.TransportError:
            return 0

    async def until_all_accept(self) -> None:
        for port in self.ports:
            while await self.deliver(port) != 200:
                await asyncio.sleep(0)


@asynccontextmanager
async def _fleet(parent: ForkServer, url: str, directory: Path, size: int) -> AsyncIterator[Fleet]:
    ports = [free_port() for _ in range(size)]
    script = directory / "never.json"
    script.write_text('{"phase": "", "kill_at": []}')
    limits = httpx.Limits(max_connections=64)
    async with serve_sandbox() as rivya, httpx.AsyncClient(timeout=30, limits=limits) as client:
        pids = []
        for port in ports:
            own = {"RECEIVER_HOST": "127.0.0.1", "RECEIVER_PORT": str(port)}
            settings = environment(rivya.base_url, url, ports[0], **own)
            pids.append(await parent.start(settings, log=directory / f"{port}.log", script=script))
        try:
            async with asyncio.timeout(SECONDS):
                while not rivya.sandbox.endpoints.by_id:
                    await asyncio.sleep(0)
            yield Fleet(rivya, client, ports)
        finally:
            for pid in pids:
                parent.send_signal(pid, signal.SIGTERM)
            assert [await parent.ended(pid) for pid in pids] == [0] * size


async def test_ten_processes_started_together_make_one_endpoint_and_all_take_its_deliveries_soon(
    empty_postgres_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with fork_server() as parent, _fleet(parent, empty_postgres_url, tmp_path, 10) as fleet:
        registered = time.monotonic()
        async with asyncio.timeout(SECONDS):
            await fleet.until_all_accept()
        took = time.monotonic() - registered
        record_property("reported", f"ten processes accept deliveries {took:.2f} s after the endpoint was made")
        assert len(fleet.rivya.sandbox.endpoints.by_id) == 1
        assert fleet.rivya.sandbox.calls.counts["webhooks.create"] == 1
        assert fleet.rivya.sandbox.calls.counts["webhooks.rotate"] == 0


async def test_two_thousand_deliveries_across_two_rotations_on_two_replicas_are_all_taken(
    postgres_url: str, tmp_path: Path
) -> None:
    async with fork_server() as parent, _fleet(parent, postgres_url, tmp_path, 2) as fleet:
        async with asyncio.timeout(SECONDS):
            await fleet.until_all_accept()
        left, answers = list(range(2000)), Counter[int]()

        async def send() -> None:
            while left:
                number = left.pop()
                answers[await fleet.deliver(fleet.ports[number % 2])] += 1
                if number in (600, 1400):
                    url = f"http://127.0.0.1:{fleet.ports[number % 2]}/api/v1/endpoint/rotate-secret"
                    answer = await fleet.client.post(url, headers={"Authorization": f"Bearer {TOKEN}"})
                    assert answer.json()["rotation"] == "none", answer.text

        async with asyncio.timeout(4 * SECONDS):
            await asyncio.gather(*(send() for _ in range(40)))
        assert answers == {200: 2000}
        assert len(next(iter(fleet.rivya.sandbox.endpoints.by_id.values())).past_secrets) == 2
