"""Intake with a real ledger, a real verifier and the test's own secrets; a test is Rivya and signs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson

from app.core.clock import SystemClock
from app.core.proxies import parse_networks
from app.endpoint.probe import ProbeKey
from app.fastpath.application import FastDelivery, FastPathApp
from app.intake.rejections import Rejections
from app.intake.webhook import ROUTE, Intake
from app.ledger.write_queue import WriteQueue
from app.rivya.schemes import parse_scheme
from app.rivya.signature import RawHeaders, Refused, Verified, Verifier, sign
from tests.support.clock import NOON, ManualClock
from tests.support.http_paths import HttpPath, ServedApp, serve_app
from tests.support.ledger_harness import LedgerHarness, open_ledger

SECRET = "whsec_0123456789abcdef0123456789abcdef"
PATH_KEY = "the-key-that-only-we-know"
PROBE_KEY = ProbeKey("rvya_sk_of_ours")
SCHEME = parse_scheme("timestamped")
MOST_BYTES = 4096


class Secrets:
    """A verification with the test's own secrets; what it does beyond that is tested with the endpoint."""

    def __init__(self, *current: str) -> None:
        self.verifier = Verifier(SCHEME, current)
        self.is_read = True
        self.awaits_test = False
        self.clock: ManualClock = ManualClock(NOON)

    def verify_now(
        self, headers: RawHeaders, body: bytes, path_key: str | None, now: datetime
    ) -> Verified | Refused | None:
        return self.verifier.verify(headers, body, now) if self.is_read else None

    async def verify(self, headers: RawHeaders, body: bytes, path_key: str | None) -> Verified | Refused:
        return self.verifier.verify(headers, body, self.clock.now())

    def may_be_test(self, endpoint_id: str | None, now: datetime) -> bool:
        return self.awaits_test

    def endpoint_id(self, path_key: str | None) -> str | None:
        return "endpoint-1" if path_key == PATH_KEY else None


class Noted:
    """What intake says of how deliveries fare."""

    def __init__(self) -> None:
        self.verified: list[str | None] = []
        self.refused: list[str | None] = []
        self.malformed: list[tuple[str | None, str]] = []

    def record_verified(self, endpoint_id: str | None, at: datetime) -> None:
        self.verified.append(endpoint_id)

    def record_refused(self, endpoint_id: str | None, at: datetime) -> None:
        self.refused.append(endpoint_id)

    def record_malformed(self, endpoint_id: str | None, defect: str, at: datetime) -> None:
        self.malformed.append((endpoint_id, defect))


@dataclass
class IntakeHarness:
    room: LedgerHarness
    client: httpx.AsyncClient
    secrets: Secrets
    health: Noted
    refusals: Rejections
    clock: ManualClock
    served: ServedApp
    app: FastPathApp

    async def deliver(
        self, body: bytes, *, secret: str = SECRET, path: str = f"/rivya/webhook/{PATH_KEY}", late: float = 0
    ) -> httpx.Response:
        """Post `body`, signed `late` seconds ago."""
        sent_at = self.clock.now() - timedelta(seconds=late)
        headers = sign(SCHEME, secret, body, timestamp=sent_at, event_id="evt_header")
        return await self.client.post(path, content=body, headers=[*headers, ("Content-Type", "application/json")])


@asynccontextmanager
async def open_intake(
    url: str, *secrets: str, http: HttpPath | None = None, trusted_proxies: str = ""
) -> AsyncIterator[IntakeHarness]:
    """`http`: behind a server; None: the client calls the application."""
    async with open_ledger(url) as room:
        clock = ManualClock(NOON)
        batch = WriteQueue(room.ledger, SystemClock())
        await batch.start()
        keyring, health, refusals = Secrets(*(secrets or (SECRET,))), Noted(), Rejections(room.database)
        keyring.clock = clock
        intake = Intake(
            keyring,
            health,
            refusals,
            batch.record,
            clock=clock,
            most_bytes=MOST_BYTES,
            probed=PROBE_KEY.answer,
            trusted_proxies=parse_networks(trusted_proxies),
        )
        app = FastPathApp()
        app.add_fast_route(ROUTE, intake, handler=FastDelivery(intake, batch.enqueue))
        async with serve_app(app, http) as served, served.client() as client:
            yield IntakeHarness(room, client, keyring, health, refusals, clock, served, app)
        await batch.stop()


def event(
    generation_id: str = "task_1", status: str = "succeeded", *, event_id: str = "evt_1", **members: Any
) -> bytes:
    """The body of an event as documented, with the generation in `data`."""
    generation = {"id": generation_id, "status": status, "model": "z-image", "result": None, "error": None}
    return orjson.dumps(
        {
            "id": event_id,
            "type": f"generation.{status}",
            "api_version": "2026-05-11",
            "created_at": "2026-05-10T00:01:00.000Z",
            "data": generation,
            **members,
        }
    )
