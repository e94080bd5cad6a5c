"""A stream of events as it leaves the sandbox: paced, with heartbeats, broken off when told, and noticed when left."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.sandbox.clock import Clock, Scheduler, stamp
from app.sandbox.faults import StreamFault
from app.sandbox.responses import NoAnswer
from app.sandbox.settings import HEARTBEAT

Fate = Literal["open", "completed", "abandoned", "broken"]


@dataclass
class StreamRecord:
    """One stream: how far it came and how it ended."""

    id: str
    fate: Fate = "open"
    events: int = 0
    ended_at: str | None = None
    ended_monotonic: float | None = None


class Streams:
    """The log of all streams, oldest first."""

    def __init__(self, scheduler: Scheduler, clock: Clock, *, keep: int) -> None:
        self.scheduler = scheduler
        self._clock = clock
        self.log: deque[StreamRecord] = deque(maxlen=keep)

    def begin(self, completion_id: str) -> StreamRecord:
        """Write down that a stream begins."""
        streamed = StreamRecord(completion_id)
        self.log.append(streamed)
        return streamed

    def end(self, streamed: StreamRecord, fate: Fate) -> None:
        """Write down how it ended; what was said first counts."""
        if streamed.fate == "open":
            streamed.fate = fate
            streamed.ended_at, streamed.ended_monotonic = stamp(self._clock.now()), self._clock.monotonic()


class EventStream(Response):
    """Sends events one by one, `pause` seconds apart."""

    media_type = "text/event-stream"

    def __init__(
        self,
        streams: Streams,
        streamed: StreamRecord,
        events: Sequence[bytes],
        *,
        pause: float,
        fault: StreamFault | None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._streams = streams
        self._streamed = streamed
        self._events = events
        self._pause = pause
        self._fault = fault or StreamFault()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, the break or the caller's leaving, whichever is first."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self._streams.end(self._streamed, "abandoned")
            elif await sending == "broken":
                self._streams.end(self._streamed, "broken")
                leaving.cancel()
                await NoAnswer(self._fault.connection or "hang_up")(scope, receive, send)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> Fate:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._paced():
            if self._streamed.events == self._fault.after and self._fault.connection is not None:
                return "broken"
            await send({"type": "http.response.body", "body": event, "more_body": True})
            self._streamed.events += 1
        self._streams.end(self._streamed, "completed")
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return "completed"

    async def _paced(self) -> AsyncIterator[bytes]:
        for number, event in enumerate(self._events):
            if number and self._pause:
                await self._streams.scheduler.sleep(self._pause)
            if number == self._fault.after:
                for _ in range(self._fault.heartbeats):
                    yield HEARTBEAT
                if self._fault.pause:
                    await self._streams.scheduler.sleep(self._fault.pause)
            yield event


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
