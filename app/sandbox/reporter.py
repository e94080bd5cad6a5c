"""Turns what happened into events, and each event into deliveries to every endpoint that wants it."""

import asyncio
from dataclasses import replace
from typing import Any

from app.sandbox.bounded import Bounded
from app.sandbox.clock import Clock
from app.sandbox.courier import Courier
from app.sandbox.endpoint import Endpoint
from app.sandbox.endpoints import Endpoints
from app.sandbox.event import Delivery, Event
from app.sandbox.faults import DeliveryFaults, Faults
from app.sandbox.generation import Generation, Status
from app.sandbox.ids import new_id
from app.sandbox.settings import SandboxSettings

_OPPOSITE: dict[Status, Status] = {"succeeded": "failed", "failed": "succeeded"}


class Reporter:
    """Keeps the events and sends them."""

    def __init__(
        self,
        endpoints: Endpoints,
        courier: Courier,
        *,
        faults: Faults,
        settings: SandboxSettings,
        clock: Clock,
        keep: int,
    ) -> None:
        self._endpoints = endpoints
        self._courier = courier
        self._faults = faults
        self._settings = settings
        self._clock = clock
        self.events: Bounded[str, Event] = Bounded(keep)

    async def report(self, generation: Generation, status: Status, *, event_type: str | None = None) -> Event:
        """Tell every endpoint that the generation has this status, true or not; returns after the due attempts."""
        kind = event_type or f"generation.{status}"
        event = self._event(generation.account, kind, generation.as_json(status), generation_id=generation.id)
        faults = generation.wishes.callback or self._faults.take_delivery(kind)
        events = [event] * (1 + faults.duplicate)
        if faults.contradict and status in _OPPOSITE:
            events.append(self._contradiction(generation, _OPPOSITE[status]))
        if faults.reorder:
            events.reverse()
        wanting = [endpoint for endpoint in self._endpoints.of(generation.account) if endpoint.wants(kind)]
        await asyncio.gather(*(self._send(events, endpoint, faults) for endpoint in wanting))
        return event

    async def test(self, endpoint: Endpoint) -> Delivery:
        """Send the endpoint a test event; returns its delivery after the attempts that are due now."""
        kind = self._settings.test_type
        faults = self._faults.take_delivery(kind)
        event = self._event(endpoint.account, kind, self._sample())
        deliveries = await self._send([event] * (1 + faults.duplicate), endpoint, faults)
        return deliveries[0]

    async def _send(self, events: list[Event], endpoint: Endpoint, faults: DeliveryFaults) -> list[Delivery]:
        now = self._clock.now()
        deliveries = [Delivery(event, endpoint.id, now, replace(faults)) for event in events]
        await self._courier.send(deliveries)
        return deliveries

    def _event(self, account: str, kind: str, carried: dict[str, Any], *, generation_id: str | None = None) -> Event:
        event = Event(new_id("evt"), account, kind, self._clock.now(), carried, generation_id)
        self.events[event.id] = event
        return event

    def _contradiction(self, generation: Generation, status: Status) -> Event:
        kind = f"generation.{status}"
        return self._event(generation.account, kind, generation.as_json(status), generation_id=generation.id)

    def _sample(self) -> dict[str, Any]:
        """What a test event carries: which of the two Rivya sends is not documented."""
        if self._settings.test_carries == "message":
            return {"message": "This is a test delivery."}
        return {"id": new_id("task"), "status": "succeeded", "model": "z-image", "result": None, "error": None}
