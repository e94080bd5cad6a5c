"""A delivery that falls back from the fast path is neither verified nor counted again, and keeps its time."""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
from starlette.types import Message, Scope

from app.core.clock import SystemClock
from app.core.errors import DatabaseUnavailable, Overloaded, ServiceError
from app.core.middleware import STARTED
from app.fastpath.application import FastDelivery
from app.intake.rejections import Rejections
from app.intake.webhook import ROUTE, Intake
from app.ledger.models import Report
from app.ledger.recorder import RecordFailed
from app.ledger.tables import deliveries
from app.ledger.write_queue import Completion, WriteQueue
from app.rivya.signature import RawHeaders, Refused, Verified, sign
from tests.support.clock import BUSY, NOON, ManualClock
from tests.support.intake_harness import MOST_BYTES, PROBE_KEY, SCHEME, SECRET, Noted, Secrets, event
from tests.support.ledger_harness import open_ledger


class Counted(Secrets):
    """Counts how often a signature is looked at."""

    looks = 0

    def verify_now(self, headers: RawHeaders, body: bytes, path_key: str | None, now: Any) -> Verified | Refused | None:
        self.looks += 1
        return super().verify_now(headers, body, path_key, now)

    async def verify(self, headers: RawHeaders, body: bytes, path_key: str | None) -> Verified | Refused:
        self.looks += 1
        return await super().verify(headers, body, path_key)


class FallsBack:
    """An exchange whose request is answered by the route, and never on the fast path."""

    is_abandoned = False
    is_handed_over = False

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Nobody leaves."""

    def respond(self, headers: bytes = b"", body: bytes = b"", *, status: bytes = b"") -> None:
        raise LookupError("injected")

    def fall_back(self) -> None:
        self.is_handed_over = True


async def fallen_back(
    url: str, outcome: ServiceError | None, *, seconds: float = 0, body: bytes | None = None, is_stuck: bool = False
) -> tuple[int, Counted, Noted, list[str]]:
    """The route's status for a delivery whose `outcome` the fast path knows after so many seconds."""
    async with open_ledger(url) as room:
        clock, secrets, health = ManualClock(NOON), Counted(SECRET), Noted()
        batch = WriteQueue(room.ledger, SystemClock())
        await batch.start()

        def first(report: Report, answer: Completion) -> None:
            if isinstance(outcome, Overloaded):
                raise outcome
            if outcome is not None:
                answer.set_exception(outcome)

        async def record(report: Report) -> Any:
            return await (asyncio.Event().wait() if is_stuck else batch.record(report))

        intake = Intake(
            secrets, health, Rejections(room.database), record, clock=clock, most_bytes=MOST_BYTES,
            probed=PROBE_KEY.answer,
        )  # fmt: skip
        signed = event()
        signature = sign(SCHEME, SECRET, signed, timestamp=NOON, event_id="evt_header")
        headers = [(name.lower().encode(), value.encode()) for name, value in signature]
        scope: Scope = {"type": "http", "method": "POST", "path": ROUTE, "headers": headers}
        scope["state"] = {STARTED: perf_counter()}
        exchange, sent = FallsBack(), list[Message]()
        try:
            is_taken = FastDelivery(intake, first)(scope, body or signed, exchange)
        except LookupError:
            is_taken = False
        assert exchange.is_handed_over or not is_taken
        clock.advance(seconds=seconds)

        async def receive() -> Message:
            return {"type": "http.request", "body": body or signed}

        async def send(message: Message) -> None:
            sent.append(message)

        async with asyncio.timeout(8):
            await intake(scope, receive, send)
        await batch.stop()
        return sent[0]["status"], secrets, health, [row["outcome"] for row in await room.rows(deliveries)]


@pytest.mark.parametrize("error", [DatabaseUnavailable(), Overloaded()])
async def test_what_could_not_be_recorded_in_time_is_not_tried_for_as_long_again(
    database_url: str, error: ServiceError
) -> None:
    status, secrets, health, recorded = await fallen_back(database_url, error)
    assert (status, secrets.looks, health.verified, recorded) == (503, 1, [None], [])


async def test_a_report_that_cannot_be_recorded_is_kept_unreadable_in_what_is_left_of_its_time(
    database_url: str,
) -> None:
    status, secrets, health, recorded = await fallen_back(database_url, RecordFailed(), seconds=9 - BUSY)
    assert (status, secrets.looks, health.verified, recorded) == (200, 1, [None], ["unreadable"])
    status, *_ = await fallen_back(database_url, RecordFailed(), seconds=9.9, is_stuck=True)
    assert status == 503


async def test_a_refusal_that_could_not_be_answered_is_counted_once(sqlite_url: str) -> None:
    status, secrets, health, _ = await fallen_back(sqlite_url, None, body=b'{"id":"evt_forged"}')
    assert (status, secrets.looks, health.refused) == (401, 1, [None])
