"""Receiver processes on one database behind a balancer, killed at random moments and started again."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.sandbox.server import ServedSandbox
from tests.support.fork_client import ForkServer
from tests.support.ports import free_port
from tests.support.receivers import environment
from tests.support.tcp_balancer import balancing

PATIENCE = 30.0


@dataclass
class Fleet:
    """Some replicas, each with its port; the public URL is the balancer's."""

    parent: ForkServer
    rivya: ServedSandbox
    database_url: str
    directory: Path
    port: int
    ports: list[int]
    changes: dict[str, str] = field(default_factory=dict)
    pids: dict[int, int] = field(default_factory=dict)
    """Port → the process that has it."""
    kills: int = 0

    @property
    def url(self) -> str:
        """Where the balancer listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self, port: int) -> None:
        """One replica, which is not yet ready when this returns."""
        ours = {"RECEIVER_LEADER_LEASE": "1", "RECEIVER_POLL_RATE": "200", "RECEIVER_MIGRATE_ON_START": "false"}
        ours |= {"RECEIVER_HOST": "127.0.0.1", "RECEIVER_PORT": str(port), **self.changes}
        settings = environment(self.rivya.base_url, self.database_url, self.port, **ours)
        log = self.directory / f"replica-{port}.log"
        self.pids[port] = await self.parent.start(settings, log=log, script=None)

    async def kill(self, port: int) -> None:
        """As a power cut would; the port is free when this returns."""
        await self._end(port, signal.SIGKILL, expected=-signal.SIGKILL)
        self.kills += 1

    async def terminate(self, port: int) -> None:
        """As a deployment does; raises where it doesn't end well."""
        await self._end(port, signal.SIGTERM, expected=0)

    async def kill_at_random(self, chance: random.Random, *, least: float, most: float) -> None:
        """One replica, some time from now, and start it again; mostly one at work, sometimes one that only starts."""
        port = chance.choice(self.ports)
        if chance.random() < 0.7:
            await self.until_ready(port)
        await self.watch(port, seconds=chance.uniform(least, most))
        await self.kill(port)
        await self.start(port)

    async def until_ready(self, port: int) -> None:
        """It answers 200 at /readyz."""
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient() as client:
            while not await _is_ready(client, port):
                await self.watch(port, seconds=0.02)

    async def watch(self, port: int, *, seconds: float) -> None:
        """Return when it ends by itself, after so many seconds at the latest."""
        await asyncio.wait([self.parent.ended(self.pids[port])], timeout=seconds)

    def log(self) -> str:
        """What all replicas wrote."""
        return "".join(path.read_text() for path in sorted(self.directory.glob("replica-*.log")))

    async def _end(self, port: int, number: signal.Signals, *, expected: int) -> None:
        pid = self.pids.pop(port)
        self.parent.send_signal(pid, number)
        status = await asyncio.wait_for(self.parent.ended(pid), PATIENCE)
        if status != expected:
            raise AssertionError(f"a replica ended with {status}:\n{self.log()[-4000:]}")


async def _is_ready(client: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


@asynccontextmanager
async def fleet(
    parent: ForkServer, rivya: ServedSandbox, database_url: str, directory: Path, *, size: int, **changes: str
) -> AsyncIterator[Fleet]:
    """So many replicas, ready; ended politely at the end."""
    replicas = Fleet(parent, rivya, database_url, directory, free_port(), [free_port() for _ in range(size)], changes)
    async with balancing(replicas.port, replicas.ports):
        try:
            for port in replicas.ports:
                await replicas.start(port)
            for port in replicas.ports:
                await replicas.until_ready(port)
            yield replicas
        finally:
            for port in list(replicas.pids):
                await replicas.terminate(port)
