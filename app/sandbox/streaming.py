"""A stream of server-sent events: paced, broken off where a fault says so, and recorded."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.sandbox.clock import stamp
from app.sandbox.faults import StreamFault
from app.sandbox.responses import NoAnswer, disconnected
from app.sandbox.settings import HEARTBEAT, Context

Fate = Literal["open", "completed", "abandoned", "broken"]


@dataclass
class StreamRecord:
    """One stream: how many events were sent and how it ended."""

    id: str
    fate: Fate = "open"
    events: int = 0
    ended_at: str | None = None
    ended_monotonic: float | None = None


class Streams:
    """The log of all streams, oldest first."""

    def __init__(self, context: Context) -> None:
        self.scheduler = context.scheduler
        self._clock = context.clock
        self.log: deque[StreamRecord] = deque(maxlen=context.keep)

    def begin(self, completion_id: str) -> StreamRecord:
        """A new record of an open stream."""
        record = StreamRecord(completion_id)
        self.log.append(record)
        return record

    def end(self, record: StreamRecord, fate: Fate) -> None:
        """Record how the stream ended, unless that is recorded already."""
        if record.fate == "open":
            record.fate = fate
            record.ended_at, record.ended_monotonic = stamp(self._clock.now()), self._clock.monotonic()


class EventStream(Response):
    """Sends events one by one, `pause` seconds apart."""

    media_type = "text/event-stream"

    def __init__(
        self, log: Streams, record: StreamRecord, events: Sequence[bytes], *, pause: float, fault: StreamFault | None
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._log = log
        self._record = record
        self._events = events
        self._pause = pause
        self._fault = fault or StreamFault()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the last event, the break, or until the caller leaves."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self._log.end(self._record, "abandoned")
            elif await sending == "broken":
                self._log.end(self._record, "broken")
                leaving.cancel()
                await NoAnswer(self._fault.connection or "hang_up")(scope, receive, send)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> Fate:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._paced():
            if self._record.events == self._fault.after and self._fault.connection is not None:
                return "broken"
            await send({"type": "http.response.body", "body": event, "more_body": True})
            self._record.events += 1
        self._log.end(self._record, "completed")
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return "completed"

    async def _paced(self) -> AsyncIterator[bytes]:
        for number, event in enumerate(self._events):
            if number and self._pause:
                await self._log.scheduler.sleep(self._pause)
            if number == self._fault.after:
                for _ in range(self._fault.heartbeats):
                    yield HEARTBEAT
                if self._fault.pause:
                    await self._log.scheduler.sleep(self._fault.pause)
            yield event
