"""Receivers as a deployment runs them: real processes by their environment, a sandbox Rivya, and HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.sandbox.server import ServedSandbox
from tests.support.ports import free_port
from tests.support.receiver_process import ReceiverProcess, serving

API_KEY = "rvya_sk_sandbox"
TOKEN = "0123456789abcdef0123456789abcdef"
ENCRYPTION_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
LOOKS = 600
"""How often to look, twenty times a second, for what must come."""


def environment(rivya_url: str, database_url: str, port: int, **changes: str) -> dict[str, str]:
    """Everything `rivya-receiver serve` needs, against a Rivya on this machine, with short waits."""
    return {
        "RIVYA_API_KEY": API_KEY,
        "RIVYA_BASE_URL": rivya_url,
        "RECEIVER_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "RECEIVER_API_TOKENS": f"tests:admin:{TOKEN}",
        "RECEIVER_ENCRYPTION_KEYS": ENCRYPTION_KEY,
        "RECEIVER_POLL_GRACE": "1",
        "RECEIVER_POLL_INTERVAL": "1",
        "DATABASE_URL": database_url,
        **changes,
    }


@dataclass
class Receiver:
    """A live process and a client of its API."""

    process: ReceiverProcess
    client: httpx.AsyncClient

    async def create(self, *, key: str | None = None, model: str = "z-image", **options: Any) -> str:
        """Submit a generation; its id."""
        body = {"model": model, "prompt": "a red fox", "params": {"sandbox": options}}
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = await self.client.post("/api/v1/generations", json=body, headers=headers)
        assert answer.is_success, answer.text
        generation_id: str = answer.json()["id"]
        return generation_id

    async def settled(self, generation_id: str) -> dict[str, Any]:
        """The generation, once its outcome is known: a process that was killed may have kept it for 60 seconds."""
        for _ in range(3):
            answer = await self.client.get(f"/api/v1/generations/{generation_id}", params={"wait": 30})
            generation: dict[str, Any] = answer.json()
            if generation["tracking"]["state"] == "settled":
                return generation
        raise AssertionError(f"{answer.text}\n{self.process.log()}")

    async def steps(self, generation_id: str) -> list[tuple[str | None, str, str]]:
        """Its history as (from, to, source)."""
        answer = await self.client.get(f"/api/v1/generations/{generation_id}/transitions")
        return [(step["from"], step["to"], step["source"]) for step in answer.json()["data"]]

    async def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics, 0 if it isn't there."""
        wanted = name + ("{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}" if labels else "")
        for line in (await self.client.get("/metrics")).text.splitlines():
            if line.startswith(f"{wanted} "):
                return float(line.split()[-1])
        return 0.0

    async def check(self, name: str) -> dict[str, Any]:
        """What /readyz says of one thing, as soon as it says anything of it."""
        for _ in range(LOOKS):
            for each in (await self.client.get("/readyz")).json()["checks"]:
                if each["name"] == name:
                    check: dict[str, Any] = each
                    return check
            self.process.exit_status(within=0.05)
        raise AssertionError(f"nothing said of {name}:\n{self.process.log()}")

    async def migrated(self) -> None:
        """Wait until the database has the schema of the code."""
        for _ in range(LOOKS):
            if (await self.check("migrations"))["ok"]:
                return
            self.process.exit_status(within=0.05)
        raise AssertionError(f"never migrated:\n{self.process.log()}")

    async def ready(self) -> dict[str, Any]:
        """Wait until /readyz answers 200."""
        return await self._readiness(200)

    async def not_ready(self) -> dict[str, Any]:
        """Wait until /readyz answers 503: its answer may be a second old."""
        return await self._readiness(503)

    async def _readiness(self, status: int) -> dict[str, Any]:
        for _ in range(LOOKS):
            answer = await self.client.get("/readyz")
            if answer.status_code == status:
                report: dict[str, Any] = answer.json()
                return report
            self.process.exit_status(within=0.05)
        raise AssertionError(f"never {status} at /readyz: {answer.text}\n{self.process.log()}")


@asynccontextmanager
async def receiver(
    rivya: ServedSandbox | str,
    database_url: str,
    directory: Path,
    *,
    port: int = 0,
    is_ready: bool = True,
    program: Path | None = None,
    **changes: str,
) -> AsyncIterator[Receiver]:
    """A receiver process, ready unless told otherwise; killed at the end. `program`: see `ReceiverProcess`."""
    port = port or free_port()
    url = rivya if isinstance(rivya, str) else rivya.base_url
    settings = environment(url, database_url, port, **changes)
    async with serving(settings, directory, port=port, program=program) as process:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=process.url, headers=headers, timeout=60) as client:
            started = Receiver(process, client)
            if is_ready:
                await started.ready()
            yield started
