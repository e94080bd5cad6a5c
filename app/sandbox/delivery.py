"""Events and their deliveries to endpoints: signed, retried, and with the faults that apply."""

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

import httpx

from app.sandbox.clock import BoundedDict, new_id, new_secret, stamp
from app.sandbox.faults import DeliveryFaults
from app.sandbox.models import Generation, Status
from app.sandbox.settings import API_VERSION, Context, wrap
from app.sandbox.signing import Message, sign
from app.sandbox.webhooks import Endpoint, Endpoints

DeliveryStatus = Literal["pending", "succeeded", "failed", "abandoned", "dropped"]
_OPPOSITE: dict[Status, Status] = {"succeeded": "failed", "failed": "succeeded"}


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
        return {"id": self.id, "type": self.type, "api_version": API_VERSION, "created_at": stamp(self.created_at)}

    def as_json(self) -> dict[str, Any]:
        """The event as `GET /webhook-events` lists it."""
        return {**self.head(), "object": "webhook_event", "data": self.carried}


@dataclass
class Delivery:
    """One event for one endpoint, with all attempts; `abandoned`: the endpoint was removed or disabled meanwhile."""

    event: Event
    endpoint_id: str
    created_at: datetime
    faults: DeliveryFaults = field(default_factory=DeliveryFaults)
    id: str = field(default_factory=lambda: new_id("whdel"))
    status: DeliveryStatus = "pending"
    attempts: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The delivery as `GET /webhooks/{id}/deliveries` lists it."""
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


class Unreachable(Exception):
    """No response came; the message names the kind of failure."""


class DeliveryClient:
    """The HTTP client for deliveries, without redirects and proxies; opened with the first one."""

    def __init__(self) -> None:
        self._http: httpx.AsyncClient | None = None

    async def post(self, url: str, body: bytes, *, headers: dict[str, str], timeout_seconds: float) -> int:
        """The status of the response. Raises `Unreachable`, also after `timeout_seconds`."""
        if self._http is None:
            self._http = httpx.AsyncClient(trust_env=False, follow_redirects=False)
        try:
            response = await self._http.post(url, content=body, headers=headers, timeout=timeout_seconds)
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            raise Unreachable(type(failure).__name__) from failure
        return response.status_code

    async def close(self) -> None:
        """Close all connections; the next delivery opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


class DeliverySender:
    """Sends deliveries and retries them; keeps the newest in `log`, those included that a fault dropped."""

    def __init__(self, context: Context, endpoints: Endpoints) -> None:
        self._context = context
        self._endpoints = endpoints
        self._held: dict[str, list[Delivery]] = {}
        self.client = DeliveryClient()
        self.log: deque[Delivery] = deque(maxlen=context.keep)

    async def send(self, deliveries: list[Delivery]) -> None:
        """Send in this order, all with the faults of the first; returns after the attempts that are due now."""
        self.log.extend(deliveries)
        faults = deliveries[0].faults
        if faults.drop:
            for delivery in deliveries:
                delivery.status = "dropped"
        elif faults.delay:
            self._context.scheduler.call_later(faults.delay, partial(self._send, deliveries))
        else:
            await self._send(deliveries)

    async def _send(self, deliveries: list[Delivery]) -> None:
        endpoint_id = deliveries[0].endpoint_id
        if deliveries[0].faults.reorder and endpoint_id not in self._held:
            self._held[endpoint_id] = deliveries
            seconds = self._context.settings.reorder_seconds
            self._context.scheduler.call_later(seconds, partial(self._release, endpoint_id))
            return
        for delivery in deliveries:
            await self._attempt(delivery)
        await self._release(endpoint_id)

    async def _release(self, endpoint_id: str) -> None:
        for delivery in self._held.pop(endpoint_id, []):
            await self._attempt(delivery)

    async def _attempt(self, delivery: Delivery) -> None:
        settings, clock = self._context.settings, self._context.clock
        endpoint = self._endpoints.by_id.get(delivery.endpoint_id)
        if endpoint is None or endpoint.status != "active":
            delivery.status = "abandoned"
            return
        body, headers = self.sign(delivery, endpoint)
        status, error = None, None
        try:
            seconds = settings.delivery_timeout
            status = await self.client.post(endpoint.url, body, headers=headers, timeout_seconds=seconds)
        except Unreachable as failure:
            error = str(failure)
        succeeded, now = status is not None and 200 <= status < 300, clock.now()
        attempt = {"at": stamp(now), "monotonic": clock.monotonic(), "response_status": status, "error": error}
        delivery.attempts.append(attempt)
        endpoint.record_attempt(now, succeeded=succeeded, disable_after=settings.disable_after)
        if succeeded:
            delivery.status = "succeeded"
        elif len(delivery.attempts) > len(settings.retry_delays):
            delivery.status = "failed"
        else:
            seconds = settings.retry_delays[len(delivery.attempts) - 1]
            self._context.scheduler.call_later(seconds, partial(self._attempt, delivery))

    def sign(self, delivery: Delivery, endpoint: Endpoint) -> tuple[bytes, dict[str, str]]:
        """The body and the headers of an attempt made now, with the delivery's faults."""
        settings, event, faults = self._context.settings, delivery.event, delivery.faults
        body = wrap(event.head(), event.carried, settings.envelope)
        time = self._context.scheduler.time()
        secrets = endpoint.signing_secrets(time, lag=settings.rotation_lag, overlap=settings.rotation_overlap)
        if faults.forge:
            secrets = [new_secret(settings.scheme.key_form)]
        sent_at = self._context.clock.now() + timedelta(seconds=faults.skew)
        headers = sign(settings.scheme, secrets, Message(event.id, sent_at, body))
        # To a parser this is still the same JSON: only a check of the raw bytes can notice.
        body = body[:-1] + b" }" if faults.corrupt else body
        return body, {"Content-Type": "application/json", "User-Agent": "Rivya-Sandbox/1", **headers}


class EventPublisher:
    """Creates events and sends each to every endpoint that wants it; keeps the newest in `events`."""

    def __init__(self, context: Context, endpoints: Endpoints, sender: DeliverySender) -> None:
        self._context = context
        self._endpoints = endpoints
        self._sender = sender
        self.events: BoundedDict[str, Event] = BoundedDict(context.keep)

    async def publish(self, generation: Generation, status: Status, *, event_type: str | None = None) -> Event:
        """The event that reports this status, true or not; returns after the attempts that are due now."""
        kind = event_type or f"generation.{status}"
        faults = generation.params.callback or self._context.faults.take_delivery(kind)
        event = self._report(generation, status, kind)
        events = [event] * (1 + faults.duplicate)
        if faults.contradict and status in _OPPOSITE:
            opposite = _OPPOSITE[status]
            events.append(self._report(generation, opposite, f"generation.{opposite}"))
        if faults.reorder:
            events.reverse()
        wanting = [endpoint for endpoint in self._endpoints.by_id.of(generation.account) if endpoint.wants(kind)]
        await asyncio.gather(*(self._send(events, endpoint, faults) for endpoint in wanting))
        return event

    async def send_test(self, endpoint: Endpoint) -> Delivery:
        """The delivery of a test event to the endpoint, after the attempts that are due now."""
        settings = self._context.settings
        faults = self._context.faults.take_delivery(settings.test_type)
        carried: dict[str, Any] = {"message": "This is a test delivery."}
        if settings.test_carries == "generation":
            carried = {"id": new_id("task"), "status": "succeeded", "model": "z-image", "result": None, "error": None}
        event = self.create_event(endpoint.account, settings.test_type, carried)
        return (await self._send([event] * (1 + faults.duplicate), endpoint, faults))[0]

    def create_event(
        self, account: str, kind: str, carried: dict[str, Any], *, generation_id: str | None = None
    ) -> Event:
        """A new event, recorded but not sent."""
        event = Event(new_id("evt"), account, kind, self._context.clock.now(), carried, generation_id)
        self.events[event.id] = event
        return event

    def _report(self, generation: Generation, status: Status, kind: str) -> Event:
        return self.create_event(generation.account, kind, generation.as_json(status), generation_id=generation.id)

    async def _send(self, events: list[Event], endpoint: Endpoint, faults: DeliveryFaults) -> list[Delivery]:
        now = self._context.clock.now()
        deliveries = [Delivery(event, endpoint.id, now, replace(faults)) for event in events]
        await self._sender.send(deliveries)
        return deliveries
