"""The sandbox itself: all its parts, put together, and what a test tells it to do."""

from collections.abc import Sequence
from typing import Any

from app.sandbox.calls import Calls
from app.sandbox.charges import Purse
from app.sandbox.chat import Chat
from app.sandbox.clock import Clock, SystemClock
from app.sandbox.courier import Courier
from app.sandbox.endpoints import Endpoints
from app.sandbox.event import Event
from app.sandbox.faults import Faults
from app.sandbox.files import Files
from app.sandbox.generation import Generation, Status
from app.sandbox.generations import Generations
from app.sandbox.keys import DEFAULT_KEY, KeyRing
from app.sandbox.oracle import state_of
from app.sandbox.outbound import Outbound
from app.sandbox.reporter import Reporter
from app.sandbox.settings import SandboxSettings
from app.sandbox.streaming import Streams
from app.sandbox.work import Work


class Sandbox:
    """A Rivya without a server; `manual=True` makes generations and retries move only when told."""

    def __init__(
        self,
        *,
        manual: bool = False,
        keys: Sequence[str] = (DEFAULT_KEY,),
        credits: int = 100_000,  # noqa: A002 - Rivya's own word
        settings: SandboxSettings | None = None,
        clock: Clock | None = None,
        keep: int = 50_000,
    ) -> None:
        self.settings = settings or SandboxSettings()
        self.clock = clock or SystemClock()
        self.work = Work(manual=manual)
        self.faults = Faults()
        self.keys = KeyRing(keys, self.clock)
        self.calls = Calls(self.clock, keep)
        self.purse = Purse(starting_credits=credits, keep=keep)
        self.endpoints = Endpoints(self.settings, self.clock, self.work)
        self._outbound = Outbound()
        shared: dict[str, Any] = {"settings": self.settings, "clock": self.clock, "keep": keep}
        self.courier = Courier(self.endpoints, work=self.work, outbound=self._outbound, **shared)
        self.reporter = Reporter(self.endpoints, self.courier, faults=self.faults, **shared)
        self.generations = Generations(self.reporter, self.purse, faults=self.faults, work=self.work, **shared)
        self.files = Files(clock=self.clock, keep=keep)
        self.chat = Chat(self.files, self.purse, models=self.generations.models, **shared)
        self.streams = Streams(self.work, self.clock, keep=keep)

    async def move(self, generation_id: str, status: Status) -> Generation:
        """One step forward, with the deliveries due by it; raises KeyError, ValueError for a step backwards."""
        return await self.generations.move(generation_id, status)

    async def settle(self, generation_id: str, status: Status = "succeeded") -> Generation:
        """To the end, by way of processing; returns after the attempts that are due now."""
        if self.generations.by_id[generation_id].status == "queued":
            await self.move(generation_id, "processing")
        return await self.move(generation_id, status)

    async def emit(self, generation_id: str, status: Status, *, event_type: str | None = None) -> Event:
        """Report a status, true or not, as an event of any type; the generation itself stays as it is."""
        generation = self.generations.by_id[generation_id]
        return await self.reporter.report(generation, status, event_type=event_type)

    async def advance(self, seconds: float) -> None:
        """Manual mode: let time pass for retries, delays and asked-for durations; returns when all that is done."""
        await self.work.advance(seconds)

    def state(self) -> dict[str, Any]:
        """The truth about everything, secrets included, as JSON."""
        return state_of(self)

    async def close(self) -> None:
        """Stop what runs by itself and close the connections of deliveries; the state stays readable."""
        await self.work.close()
        await self._outbound.close()
