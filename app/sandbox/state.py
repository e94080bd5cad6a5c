"""The sandbox itself: all its parts, put together, and what a test tells it to do."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.sandbox.accounts import DEFAULT_KEY, CreditAccounts, Key, KeyRing
from app.sandbox.chat import Chat
from app.sandbox.clock import Clock, Scheduler, SystemClock, stamp
from app.sandbox.delivery import Delivery, DeliverySender, Event, EventPublisher
from app.sandbox.faults import ApiFault, Faults
from app.sandbox.files import File, Files
from app.sandbox.generations import Generations
from app.sandbox.models import Generation, Status
from app.sandbox.settings import SandboxSettings
from app.sandbox.streaming import Streams
from app.sandbox.webhooks import Endpoint, Endpoints


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
        self.scheduler = Scheduler(manual=manual)
        self.faults = Faults()
        self.keys = KeyRing(keys, self.clock)
        self.calls = CallLog(self.clock, keep)
        self.accounts = CreditAccounts(starting_credits=credits, keep=keep)
        self.endpoints = Endpoints(self.settings, self.clock, self.scheduler)
        shared: dict[str, Any] = {"settings": self.settings, "clock": self.clock, "keep": keep}
        self.sender = DeliverySender(self.endpoints, scheduler=self.scheduler, **shared)
        self.publisher = EventPublisher(self.endpoints, self.sender, faults=self.faults, **shared)
        self.generations = Generations(
            self.publisher, self.accounts, faults=self.faults, scheduler=self.scheduler, **shared
        )
        self.files = Files(clock=self.clock, keep=keep)
        self.chat = Chat(self.files, self.accounts, models=self.generations.models, **shared)
        self.streams = Streams(self.scheduler, self.clock, keep=keep)

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
        return await self.publisher.publish(generation, status, event_type=event_type)

    async def advance(self, seconds: float) -> None:
        """Manual mode: let time pass for retries, delays and asked-for durations; returns when all that is done."""
        await self.scheduler.advance(seconds)

    def state(self) -> dict[str, Any]:
        """The truth about everything, secrets included, as JSON."""
        return state_of(self)

    async def close(self) -> None:
        """Stop what runs by itself and close the connections of deliveries; the state stays readable."""
        await self.scheduler.close()
        await self.sender.client.close()


# The truth about everything in the sandbox, secrets included, as JSON: what a test compares the service with.


def state_of(sandbox: Sandbox) -> dict[str, Any]:
    """Everything, oldest first."""
    return {
        "settings": asdict(sandbox.settings),
        "faults": asdict(sandbox.faults),
        "keys": [_key(key) for key in sandbox.keys],
        "credits": {key.account: sandbox.accounts.balance(key.account) for key in sandbox.keys},
        "generations": [_generation(generation) for generation in sandbox.generations.by_id.values()],
        "files": [_file(file) for file in sandbox.files.by_id.values()],
        "chat_sessions": [session.with_messages() for session in sandbox.chat.sessions.values()],
        "streams": [asdict(streamed) for streamed in sandbox.streams.log],
        "charges": sandbox.accounts.charges_by_key(),
        "calls": {route: _calls(sandbox, route) for route in sorted(sandbox.calls.counts)},
        "endpoints": [_endpoint(endpoint) for endpoint in sandbox.endpoints.by_id.values()],
        "deliveries": [_delivery(delivery) for delivery in sandbox.sender.log],
    }


def _key(key: Key) -> dict[str, Any]:
    return {**asdict(key), "expires_at": None if key.expires_at is None else key.expires_at.isoformat()}


def _generation(generation: Generation) -> dict[str, Any]:
    return {
        **generation.as_json(),
        "account": generation.account,
        "client_request_id": generation.client_request_id,
        "idempotency_key": generation.charge.idempotency_key,
        "moves": generation.moves,
        "polls": list(generation.polls),
    }


def _file(file: File) -> dict[str, Any]:
    return {
        **file.as_json(),
        "account": file.account,
        "sha256": file.sha256,
        "client_request_id": file.client_request_id,
    }


def _calls(sandbox: Sandbox, route: str) -> dict[str, Any]:
    return {"count": sandbox.calls.counts[route], "recent": [asdict(called) for called in sandbox.calls.of(route)]}


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {**endpoint.with_secret(), "account": endpoint.account, "past_secrets": endpoint.past_secrets}


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        **delivery.as_json(),
        "generation_id": delivery.event.generation_id,
        "carried": delivery.event.carried,
        "attempts": delivery.attempts,
        "faults": asdict(delivery.faults),
    }


# Which calls were made: counted per route for ever, kept one by one up to a bound.


@dataclass
class CallRecord:
    """One call; `status` stays None where no answer went back."""

    route: str
    method: str
    path: str
    wall: str
    monotonic: float
    idempotency_key: str | None = None
    status: int | None = None
    fault: ApiFault | None = None
    """What befell it."""


class CallLog:
    """The log of all calls of the public API."""

    def __init__(self, clock: Clock, keep: int) -> None:
        self._clock = clock
        self.counts: Counter[str] = Counter()
        self.recent: deque[CallRecord] = deque(maxlen=keep)

    def record(self, route: str, *, method: str, path: str, idempotency_key: str | None) -> CallRecord:
        """Write a call down as it arrives."""
        called = CallRecord(route, method, path, self.now()["wall"], self._clock.monotonic(), idempotency_key)
        self.counts[route] += 1
        self.recent.append(called)
        return called

    def now(self) -> dict[str, Any]:
        """The present, on both clocks."""
        return {"wall": stamp(self._clock.now()), "monotonic": self._clock.monotonic()}

    def of(self, route: str) -> list[CallRecord]:
        """The kept calls of one route, oldest first."""
        return [called for called in self.recent if called.route == route]
