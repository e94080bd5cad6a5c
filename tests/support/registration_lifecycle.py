"""One life of a registration in real processes that are killed on the way: register, rotate, replace, move back."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.sandbox.delivery import DeliveryClient
from app.sandbox.faults import ApiFault
from app.sandbox.server import ServedSandbox
from tests.support.fork_client import ForkServer
from tests.support.ports import free_port
from tests.support.receivers import TOKEN, environment

PHASES = ("register", "rotate", "replace", "move")
PATIENCE = 90.0


class OneRequestClient(DeliveryClient):
    """Keeps no connection: a receiver that stops would wait a second for the next request on it."""

    async def post(self, url: str, body: bytes, *, headers: dict[str, str], timeout_seconds: float) -> int:
        headers = {**headers, "connection": "close"}
        return await super().post(url, body, headers=headers, timeout_seconds=timeout_seconds)


@dataclass
class Life:
    """A receiver that is started again whenever it has died, until each phase has come to its end."""

    fork_server: ForkServer
    rivya: ServedSandbox
    database_url: str
    directory: Path
    kills: dict[str, list[str]] = field(default_factory=dict)
    """Phase → fault points, at each of which it is killed once if it comes there, whatever was killed before."""
    killed: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.log = self.directory / f"life-{self.port}.log"
        self.script = self.directory / f"life-{self.port}.json"
        self.answers: list[str] = []
        """Everything the API and the metrics said."""
        self._pid: int | None = None
        self._host = "127.0.0.1"
        self._phase = ""
        self._kill_at: list[str] = []
        self.rivya.sandbox.sender.client = OneRequestClient()
        headers = {"Authorization": f"Bearer {TOKEN}", "Connection": "close"}
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=15)

    async def live(self) -> None:
        try:
            await self._enter("register", host="127.0.0.1")
            await self._until("serving", self._is_serving)
            await self._enter("rotate", host="127.0.0.1")
            before = self._mine().past_secrets
            await self._post("/api/v1/endpoint/rotate-secret")
            await self._until("rotated", lambda: self._is_rotated(len(before)))
            fault = ApiFault(route="webhooks.update", status=400)
            self.rivya.sandbox.faults.api.append(fault)
            await self._enter("replace", host="localhost")
            await self._until("replaced", self._is_serving)
            self.rivya.sandbox.faults.api.remove(fault)
            await self._enter("move", host="127.0.0.1")
            await self._until("moved", self._is_serving)
        finally:
            await self._stop()
            await self._client.aclose()

    async def _enter(self, phase: str, *, host: str) -> None:
        """The next phase; a changed public URL needs another process."""
        await asyncio.gather(*(self._get(path) for path in ("/metrics", "/readyz", "/api/v1/endpoint/history")))
        if self._pid is not None and host != self._host:
            await self._stop()
        self._phase, self._host = phase, host
        self._kill_at = list(self.kills.get(phase, ()))
        self._write_script()
        if self._pid is None:
            await self._start()

    def _write_script(self) -> None:
        self.script.write_text(json.dumps({"phase": self._phase, "kill_at": self._kill_at}))

    async def _start(self) -> None:
        settings = environment(
            self.rivya.base_url,
            self.database_url,
            self.port,
            RECEIVER_HOST="127.0.0.1",
            RECEIVER_PORT=str(self.port),
            RECEIVER_PUBLIC_URL=f"http://{self._host}:{self.port}",
            RECEIVER_LEADER_LEASE="1",
            RECEIVER_MIGRATE_ON_START="false",
        )
        self._pid = await self.fork_server.start(settings, log=self.log, script=self.script)

    async def _stop(self) -> None:
        if self._pid is not None:
            self.fork_server.send_signal(self._pid, signal.SIGTERM)
            if await self.fork_server.ended(self._pid) == -signal.SIGKILL:
                self._record_kill()
        self._pid = None

    async def _revive(self) -> None:
        """Start again what has killed itself; it no longer does at the same point."""
        if self._pid is not None and self.fork_server.ended(self._pid).done():
            status = self.fork_server.ended(self._pid).result()
            assert status == -signal.SIGKILL, f"ended with {status}:\n{self.log.read_text()}"
            self._record_kill()
            self._write_script()
            await self._start()

    def _record_kill(self) -> None:
        # Not just the last: another thread may still have passed one before the signal took effect. And perhaps of the
        # phase before: the process may have read the script just before a new one was written.
        planned = {(phase, point) for phase, points in self.kills.items() for point in points}
        phase, point = next(passed for passed in reversed(self._passed()) if passed in planned.difference(self.killed))
        if phase == self._phase:
            self._kill_at.remove(point)
        self.killed.append((phase, point))

    async def _until(self, what: str, is_true: Callable[[], Awaitable[bool]]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not await is_true():
                    await self._revive()
                    await self._wait_briefly()
        except TimeoutError:
            text = f"{self.kills}: never {what}: {await self._get('/api/v1/endpoint')}\n{self.log.read_text()}"
            raise AssertionError(text) from None

    async def _wait_briefly(self) -> None:
        """Until the process ends, or a fifth of a second."""
        assert self._pid is not None
        await asyncio.wait([self.fork_server.ended(self._pid)], timeout=0.2)

    async def _is_serving(self) -> bool:
        endpoint = await self._get("/api/v1/endpoint")
        if endpoint.get("state") != "serving" or f"//{self._host}:" not in str(endpoint.get("url")):
            return False
        return len(self._active()) == 1 and await self._delivers()

    async def _is_rotated(self, before: int) -> bool:
        endpoint = await self._get("/api/v1/endpoint")
        if endpoint.get("rotation") == "requested" or len(self._mine().past_secrets) == before:
            await self._post("/api/v1/endpoint/rotate-secret")  # the wish itself may have been lost with its process
            return False
        return endpoint.get("rotation") == "none" and await self._delivers()

    async def _delivers(self) -> bool:
        """A delivery of now, signed with the newest secret, is verified by the one endpoint that is there."""
        sandbox = self.rivya.sandbox
        delivery = await sandbox.publisher.send_test(self._mine())
        status = delivery.attempts[-1]["response_status"] if delivery.attempts else None
        return status == 200

    def _active(self) -> list[Any]:
        return [known for known in self.rivya.sandbox.endpoints.by_id.values() if known.status == "active"]

    def _mine(self) -> Any:
        return self._active()[-1]

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._ask("GET", path)

    async def _post(self, path: str) -> None:
        await self._ask("POST", path)

    async def _ask(self, method: str, path: str) -> dict[str, Any]:
        try:
            answer = await self._client.request(method, path)
        except httpx.TransportError:
            return {}  # it is not up yet, or it has just been killed
        self.answers.append(answer.text)
        is_json = answer.is_success and answer.headers["content-type"].startswith("application/json")
        return answer.json() if is_json else {}

    def points(self) -> list[tuple[str, str]]:
        """What was passed, each point of a phase once, in order."""
        return list(dict.fromkeys(self._passed()))

    def _passed(self) -> list[tuple[str, str]]:
        lines = Path(f"{self.script}.passed").read_text().splitlines()
        return [(phase, point) for phase, point in map(json.loads, lines)]
