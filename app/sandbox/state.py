"""The sandbox: all its parts, what tests do with it, and everything it knows as JSON."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request

from app.sandbox.accounts import DEFAULT_KEY, CreditAccounts, KeyRing
from app.sandbox.chat import Chat, Streams
from app.sandbox.clock import Clock, Scheduler, SystemClock, stamp
from app.sandbox.delivery import Delivery, DeliverySender, Event, EventPublisher
from app.sandbox.faults import ApiFault, Faults
from app.sandbox.files import File, Files
from app.sandbox.generations import Generations
from app.sandbox.models import Generation, Status
from app.sandbox.settings import Context, SandboxSettings
from app.sandbox.webhooks import Endpoint, Endpoints


@dataclass
class CallRecord:
    """One call of the public API; `status` stays None where no answer was sent."""

    route: str
    method: str
    path: str
    wall: str
    monotonic: float
    idempotency_key: str | None = None
    status: int | None = None
    fault: ApiFault | None = None


class CallLog:
    """The calls of the public API: all are counted, the newest are kept one by one."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self.counts: Counter[str] = Counter()
        self.recent: deque[CallRecord] = deque(maxlen=context.keep)

    def record(self, route: str, request: Request) -> CallRecord:
        """The record of a call that has just arrived."""
        key = request.headers.get("idempotency-key")
        call = CallRecord(route, request.method, request.url.path, **self.now(), idempotency_key=key)
        self.counts[route] += 1
        self.recent.append(call)
        return call

    def now(self) -> dict[str, Any]:
        """The time on both clocks: `wall` as Rivya writes it, `monotonic` in seconds."""
        return {"wall": stamp(self._clock.now()), "monotonic": self._clock.monotonic()}

    def of(self, route: str) -> list[CallRecord]:
        """The kept calls of one route, oldest first."""
        return [call for call in self.recent if call.route == route]


class Sandbox:
    """A Rivya without a server; with `manual=True` generations and retries move only by `move` and `advance`."""

    def __init__(
        self,
        *,
        manual: bool = False,
        keys: Sequence[str] = (DEFAULT_KEY,),
        settings: SandboxSettings | None = None,
        clock: Clock | None = None,
        keep: int = 50_000,
    ) -> None:
        self.settings = settings or SandboxSettings()
        self.clock = clock or SystemClock()
        self.scheduler = Scheduler(manual=manual)
        self.faults = Faults()
        context = Context(self.settings, self.faults, self.clock, self.scheduler, keep)
        self.keys = KeyRing(keys, self.clock)
        self.calls = CallLog(context)
        self.accounts = CreditAccounts(context)
        self.endpoints = Endpoints(context)
        self.sender = DeliverySender(context, self.endpoints)
        self.publisher = EventPublisher(context, self.endpoints, self.sender)
        self.generations = Generations(context, self.publisher, self.accounts)
        self.files = Files(context)
        self.chat = Chat(context, self.files, self.accounts, models=self.generations.models)
        self.streams = Streams(context)

    async def move(self, generation_id: str, status: Status) -> None:
        """Set the status and send the deliveries due by it. Raises KeyError, and ValueError for a step backwards."""
        await self.generations.move(self.generations.by_id[generation_id], status)

    async def settle(self, generation_id: str, status: Status = "succeeded") -> None:
        """Move to the end, by way of processing; returns after the attempts that are due now."""
        if self.generations.by_id[generation_id].status == "queued":
            await self.move(generation_id, "processing")
        await self.move(generation_id, status)

    async def emit(self, generation_id: str, status: Status, *, event_type: str | None = None) -> Event:
        """The event that reports a status, true or not, sent to all endpoints; the generation stays as it is."""
        generation = self.generations.by_id[generation_id]
        return await self.publisher.publish(generation, status, event_type=event_type)

    async def advance(self, seconds: float) -> None:
        """Manual mode: let time pass; returns when every retry, delay and duration that ends by then is done."""
        await self.scheduler.advance(seconds)

    async def close(self) -> None:
        """Cancel what runs by itself and close the connections of deliveries; the state stays readable."""
        await self.scheduler.close()
        await self.sender.client.close()

    def state(self) -> dict[str, Any]:
        """Everything as JSON, secrets included, oldest first."""
        return {
            "settings": asdict(self.settings),
            "faults": asdict(self.faults),
            "keys": [asdict(key) for key in self.keys.values()],
            "credits": {key.account: self.accounts.balance(key.account) for key in self.keys.values()},
            "generations": [_generation(generation) for generation in self.generations.by_id.values()],
            "files": [_file(file) for file in self.files.by_id.values()],
            "chat_sessions": [session.with_messages() for session in self.chat.sessions.values()],
            "streams": [asdict(record) for record in self.streams.log],
            "charges": self.accounts.charges_by_key(),
            "calls": {
                route: {"count": count, "recent": [asdict(call) for call in self.calls.of(route)]}
                for route, count in sorted(self.calls.counts.items())
            },
            "endpoints": [_endpoint(endpoint) for endpoint in self.endpoints.by_id.values()],
            "deliveries": [_delivery(delivery) for delivery in self.sender.log],
        }


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
    members = {"account": file.account, "sha256": file.sha256, "client_request_id": file.client_request_id}
    return {**file.as_json(), **members}


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
