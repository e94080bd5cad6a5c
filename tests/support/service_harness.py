"""A whole service in this process, on a clock that tests move by hand, its loops turned by the test."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import structlog
from sqlalchemy import insert, update

from app.core.clock import Clock
from app.core.settings import load
from app.endpoint.models import State
from app.endpoint.repository import endpoints
from app.ledger.models import Report
from app.ledger.tables import polls
from app.main import Service
from app.operations.alarms import Alarm
from app.sandbox.server import serve_sandbox
from app.sandbox.state import Sandbox
from tests.support.alert_rules import rules
from tests.support.clock import NOON, ManualClock
from tests.support.receivers import environment

PATH_KEY = "a-path-key-of-this-test"
ALERTS = {
    Alarm.CALLBACKS_MISSED: "RivyaCallbacksMissed",
    Alarm.SILENCE: "RivyaSilent",
    Alarm.REFUSALS: "RivyaDeliveriesRefused",
    Alarm.OVERDUE: "RivyaGenerationsOverdue",
    Alarm.SUBMISSION: "RivyaSubmissionUnresolved",
    Alarm.POLL_ERRORS: "RivyaPollsFailing",
    Alarm.TOKEN_LIMITS: "RivyaTokenLimits",
    Alarm.FEED_LAG: "RivyaFeedHeldUp",
    Alarm.LEADER: "RivyaReceiverLeaderless",
}


@dataclass
class ServiceHarness:
    service: Service
    sandbox: Sandbox
    clock: ManualClock
    client: httpx.AsyncClient
    logged: list[Any] = field(default_factory=list)

    async def record(self, *reports: Report) -> None:
        await self.service.batch._recorder.commit(reports)

    async def registered(self) -> None:
        """An endpoint of ours serves at PATH_KEY."""
        row = {
            "id": "endpoint-1",
            "path_key": PATH_KEY,
            "url": f"http://127.0.0.1/rivya/webhook/{PATH_KEY}",
            "rivya_id": "whend_1",
            "state": State.SERVING,
            "created_at": self.clock.now(),
            "updated_at": self.clock.now(),
            "refusals": 0,
        }
        async with self.service.database.transaction() as connection:
            await connection.execute(insert(endpoints).values(row))
        await self.service.keyring.load()
        await self.service.endpoint_health.run_once()

    async def make_due(self) -> None:
        """Have every open generation due now."""
        async with self.service.database.transaction() as connection:
            open_ones = update(polls).where(polls.c.next_poll_at.is_not(None))
            await connection.execute(open_ones.values(next_poll_at=self.clock.now(), lease_until=None))

    async def poll(self) -> None:
        """Poll what is due, and wait for the answers."""
        await self.make_due()
        await self.service.poller.run_once()
        await self.service.poller.idle()

    async def raised(self) -> set[Alarm]:
        """The alarms that are raised, by a look of now: the log, /readyz and the alert rules have to agree."""
        with structlog.testing.capture_logs() as logged:
            await self.service.alarms.run_once()
        self.logged += [line for line in logged if line["event"].startswith("alarm.")]
        metrics = (await self.client.get("/metrics")).text
        checks = {check["name"]: check for check in (await self.client.get("/readyz")).json()["checks"]}
        raised = {alarm for alarm in Alarm if not checks[alarm]["ok"]}
        assert not any(checks[alarm]["required"] for alarm in Alarm)
        firing = {alarm for alarm, name in ALERTS.items() if rules()[name].holds(metrics)}
        assert raised == firing
        return raised

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What was logged of alarms so far."""
        return [(line["event"], line["alarm"]) for line in self.logged]

    def pass_time(self, **units: float) -> None:
        self.clock.advance(seconds=timedelta(**units).total_seconds())


@asynccontextmanager
async def open_service(url: str, *, goes_by: Clock | None = None, **changes: str) -> AsyncIterator[ServiceHarness]:
    """A service whose loops do not run; nothing is registered. `changes` are settings.

    It goes by the clock of the room unless another is given.
    """
    clock = ManualClock(NOON)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serve_sandbox(Sandbox(manual=True, clock=clock)))
        given = environment(served.base_url, url, 1, **{"RECEIVER_MIGRATE_ON_START": "false", **changes})
        service = Service(load(**{name.lower(): value for name, value in given.items()}), goes_by or clock)
        service.readiness.keep_seconds = 0
        stack.push_async_callback(service.close)
        await service.batch.start()
        stack.push_async_callback(service.batch.stop)
        stack.push_async_callback(service.submissions.stop)  # a create whose caller has gone goes on
        transport = httpx.ASGITransport(service.app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://receiver"))
        yield ServiceHarness(service, served.sandbox, clock, client)
