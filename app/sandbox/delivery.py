"""Brings events to endpoints: signed, retried with backoff, and as faulty as told."""

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

import httpx

from app.sandbox.clock import Bounded, Clock, Scheduler, new_id, new_secret, stamp
from app.sandbox.faults import DeliveryFaults, Faults
from app.sandbox.models import Generation, Status
from app.sandbox.settings import API_VERSION, SandboxSettings, wrap
from app.sandbox.signing import Message, sign
from app.sandbox.webhooks import Endpoint, Endpoints

# What Rivya reports: an event, and the delivery of one event to one endpoint with all its attempts.


Fate = Literal["pending", "succeeded", "failed", "abandoned", "dropped"]


@dataclass(frozen=True)
class Event:
    """Something that happened; `carried` is the object in its body."""

    id: str
    account: str
    type: str
    created_at: datetime
    carried: dict[str, Any]
    generation_id: str | None = None

    def head(self) -> dict[str, Any]:
        """The documented first members of a delivery's body."""
        return {
            "id": self.id,
            "type": self.type,
            "api_version": API_VERSION,
            "created_at": stamp(self.created_at),
        }

    def as_json(self) -> dict[str, Any]:
        """The event as `GET /webhook-events` lists it."""
        return {**self.head(), "object": "webhook_event", "data": self.carried}


@dataclass
class Delivery:
    """One event on its way to one endpoint; `abandoned` means the endpoint went away meanwhile."""

    event: Event
    endpoint_id: str
    created_at: datetime
    faults: DeliveryFaults = field(default_factory=DeliveryFaults)
    id: str = field(default_factory=lambda: new_id("whdel"))
    status: Fate = "pending"
    attempts: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The delivery as an endpoint's log lists it."""
        last = self.attempts[-1] if self.attempts else {}
        return {
            "id": self.id,
            "object": "webhook_delivery",
            "endpoint_id": self.endpoint_id,
            "event_id": self.event.id,
            "event_type": self.event.type,
            "status": self.status,
            "attempts": len(self.attempts),
            "response_status": last.get("response_status"),
            "error": last.get("error"),
            "created_at": stamp(self.created_at),
            "last_attempt_at": last.get("at"),
        }


# The one HTTP client that deliveries leave by: no redirects, no proxies, a short time-out.


class Unreachable(Exception):
    """No answer came; the message is the kind of failure."""


class DeliveryClient:
    """Posts deliveries; its client is made with the first one, in the loop that sends it."""

    def __init__(self) -> None:
        self._http: httpx.AsyncClient | None = None

    async def post(self, url: str, body: bytes, *, headers: dict[str, str], timeout_seconds: float) -> int:
        """The status of the answer; raises `Unreachable`, also after `timeout_seconds` of silence."""
        if self._http is None:
            self._http = httpx.AsyncClient(trust_env=False, follow_redirects=False)
        try:
            response = await self._http.post(url, content=body, headers=headers, timeout=timeout_seconds)
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            raise Unreachable(type(failure).__name__) from failure
        return response.status_code

    async def close(self) -> None:
        """Close all connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


class DeliverySender:
    """Delivers; every delivery, dropped ones included, stays in a bounded log."""

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        settings: SandboxSettings,
        clock: Clock,
        scheduler: Scheduler,
        keep: int,
    ) -> None:
        self._endpoints = endpoints
        self._settings = settings
        self._clock = clock
        self._scheduler = scheduler
        self.client = DeliveryClient()
        self._held: dict[str, list[Delivery]] = {}
        self.log: deque[Delivery] = deque(maxlen=keep)

    async def send(self, deliveries: list[Delivery]) -> None:
        """Deliver in this order, all with the faults of the first; returns after the attempts that are due now."""
        if not deliveries:
            return
        self.log.extend(deliveries)
        faults = deliveries[0].faults
        if faults.drop:
            for delivery in deliveries:
                delivery.status = "dropped"
        elif faults.delay:
            self._scheduler.call_later(faults.delay, partial(self._send, deliveries))
        else:
            await self._send(deliveries)

    async def _send(self, deliveries: list[Delivery]) -> None:
        endpoint_id = deliveries[0].endpoint_id
        if deliveries[0].faults.reorder and endpoint_id not in self._held:
            self._held[endpoint_id] = deliveries
            self._scheduler.call_later(self._settings.reorder_seconds, partial(self._release, endpoint_id))
            return
        await self._attempt_all(deliveries)
        await self._release(endpoint_id)

    async def _release(self, endpoint_id: str) -> None:
        await self._attempt_all(self._held.pop(endpoint_id, []))

    async def _attempt_all(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            await self._attempt(delivery)

    async def _attempt(self, delivery: Delivery) -> None:
        endpoint = self._endpoints.by_id.get(delivery.endpoint_id)
        if endpoint is None or endpoint.status != "active":
            delivery.status = "abandoned"
            return
        status, error = await self._post(delivery, endpoint)
        succeeded = status is not None and 200 <= status < 300
        now = self._clock.now()
        delivery.attempts.append(
            {
                "at": stamp(now),
                "monotonic": self._clock.monotonic(),
                "response_status": status,
                "error": error,
            }
        )
        endpoint.record_attempt(now, succeeded=succeeded, disable_after=self._settings.disable_after)
        if succeeded:
            delivery.status = "succeeded"
        else:
            self._retry(delivery)

    async def _post(self, delivery: Delivery, endpoint: Endpoint) -> tuple[int | None, str | None]:
        body, headers = self.sign(delivery, endpoint)
        try:
            seconds = self._settings.delivery_timeout
            return await self.client.post(endpoint.url, body, headers=headers, timeout_seconds=seconds), None
        except Unreachable as failure:
            return None, str(failure)

    def sign(self, delivery: Delivery, endpoint: Endpoint) -> tuple[bytes, dict[str, str]]:
        """The body and the headers of an attempt made now, with the delivery's faults."""
        settings, event, faults = self._settings, delivery.event, delivery.faults
        body = wrap(event.head(), event.carried, settings.envelope)
        secrets = endpoint.signing_secrets(
            self._scheduler.time(), lag=settings.rotation_lag, overlap=settings.rotation_overlap
        )
        if faults.forge:
            secrets = [new_secret(settings.scheme.key_form)]
        sent_at = self._clock.now() + timedelta(seconds=faults.skew)
        headers = sign(settings.scheme, secrets, Message(event.id, sent_at, body))
        # Still the same JSON to a parser, so that only a check over the raw bytes can notice.
        body = body[:-1] + b" }" if faults.corrupt else body
        return body, {"Content-Type": "application/json", "User-Agent": "Rivya-Sandbox/1", **headers}

    def _retry(self, delivery: Delivery) -> None:
        retries = len(delivery.attempts) - 1
        if retries >= len(self._settings.retry_delays):
            delivery.status = "failed"
            return
        self._scheduler.call_later(self._settings.retry_delays[retries], partial(self._attempt, delivery))


# Turns what happened into events, and each event into deliveries to every endpoint that wants it.


_OPPOSITE: dict[Status, Status] = {"succeeded": "failed", "failed": "succeeded"}


class EventPublisher:
    """Keeps the events and sends them."""

    def __init__(
        self,
        endpoints: Endpoints,
        sender: DeliverySender,
        *,
        faults: Faults,
        settings: SandboxSettings,
        clock: Clock,
        keep: int,
    ) -> None:
        self._endpoints = endpoints
        self._sender = sender
        self._faults = faults
        self._settings = settings
        self._clock = clock
        self.events: Bounded[str, Event] = Bounded(keep)

    async def publish(self, generation: Generation, status: Status, *, event_type: str | None = None) -> Event:
        """Tell every endpoint that the generation has this status, true or not; returns after the due attempts."""
        kind = event_type or f"generation.{status}"
        event = self.create_event(generation.account, kind, generation.as_json(status), generation_id=generation.id)
        faults = generation.options.callback or self._faults.take_delivery(kind)
        events = [event] * (1 + faults.duplicate)
        if faults.contradict and status in _OPPOSITE:
            events.append(self._contradiction(generation, _OPPOSITE[status]))
        if faults.reorder:
            events.reverse()
        wanting = [endpoint for endpoint in self._endpoints.of(generation.account) if endpoint.wants(kind)]
        await asyncio.gather(*(self._send(events, endpoint, faults) for endpoint in wanting))
        return event

    async def send_test(self, endpoint: Endpoint) -> Delivery:
        """Send the endpoint a test event; returns its delivery after the attempts that are due now."""
        kind = self._settings.test_type
        faults = self._faults.take_delivery(kind)
        event = self.create_event(endpoint.account, kind, self._sample())
        deliveries = await self._send([event] * (1 + faults.duplicate), endpoint, faults)
        return deliveries[0]

    async def _send(self, events: list[Event], endpoint: Endpoint, faults: DeliveryFaults) -> list[Delivery]:
        now = self._clock.now()
        deliveries = [Delivery(event, endpoint.id, now, replace(faults)) for event in events]
        await self._sender.send(deliveries)
        return deliveries

    def create_event(
        self, account: str, kind: str, carried: dict[str, Any], *, generation_id: str | None = None
    ) -> Event:
        """A new event, recorded but not sent."""
        event = Event(new_id("evt"), account, kind, self._clock.now(), carried, generation_id)
        self.events[event.id] = event
        return event

    def _contradiction(self, generation: Generation, status: Status) -> Event:
        kind = f"generation.{status}"
        return self.create_event(generation.account, kind, generation.as_json(status), generation_id=generation.id)

    def _sample(self) -> dict[str, Any]:
        """What a test event carries: which of the two Rivya sends is not documented."""
        if self._settings.test_carries == "message":
            return {"message": "This is a test delivery."}
        return {"id": new_id("task"), "status": "succeeded", "model": "z-image", "result": None, "error": None}
