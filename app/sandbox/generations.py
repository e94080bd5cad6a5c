"""All generations: created once per idempotency key, moved through their statuses, reported when they end."""

from functools import partial
from typing import Any

from app.sandbox.accounts import Charge, CreditAccounts, Idempotency
from app.sandbox.clock import Bounded, Clock, Scheduler, new_id
from app.sandbox.delivery import EventPublisher
from app.sandbox.faults import Faults
from app.sandbox.models import Generation, Order, Status, catalogue, read_order
from app.sandbox.responses import missing
from app.sandbox.settings import SandboxSettings

_LEFT_OUT_WHEN_SHORT = ("final_credits", "created_at", "updated_at")


class Generations:
    """The generations of every account, oldest first."""

    def __init__(
        self,
        publisher: EventPublisher,
        accounts: CreditAccounts,
        *,
        faults: Faults,
        settings: SandboxSettings,
        clock: Clock,
        scheduler: Scheduler,
        keep: int,
    ) -> None:
        self._publisher = publisher
        self._accounts = accounts
        self._faults = faults
        self._settings = settings
        self._clock = clock
        self._scheduler = scheduler
        self._idempotency = Idempotency(keep)
        self.models = catalogue()
        self.by_id: Bounded[str, Generation] = Bounded(keep)

    def get(self, account: str, generation_id: str) -> Generation:
        """One generation of the account; raises `not_found`."""
        generation = self.by_id.get(generation_id)
        if generation is None or generation.account != account:
            raise missing("Generation")
        return generation

    async def create(self, account: str, body: dict[str, Any], *, key: str | None) -> dict[str, Any]:
        """The object of a new generation, or the first answer again for a used key; raises the documented refusals."""
        known = self._idempotency.find(account, key, body) if key else None
        if known is not None:
            return known
        generation = self._open(account, read_order(body, self.models), key)
        answer = self.as_json(generation)
        if self._settings.short_create:
            answer = {name: value for name, value in answer.items() if name not in _LEFT_OUT_WHEN_SHORT}
        if key:
            self._idempotency.remember(account, key, body, answer=answer)
        await self._start(generation)
        return answer

    async def move(self, generation_id: str, status: Status) -> Generation:
        """Set a status and deliver what falls due by it; raises KeyError, and ValueError for a step backwards."""
        generation = self.by_id[generation_id]
        await self._move(generation, status)
        return generation

    def as_json(self, generation: Generation) -> dict[str, Any]:
        """The object as the API answers it."""
        if not self._settings.echo_client_request_id:
            return generation.as_json()
        return {**generation.as_json(), "client_request_id": generation.client_request_id}

    def _open(self, account: str, order: Order, key: str | None) -> Generation:
        charge = Charge(account, key, new_id("task"), order.model.base_credits)
        self._accounts.reserve(charge, refusal_status=self._settings.insufficient_credits_status)
        now = self._clock.now()
        generation = Generation(
            id=charge.generation_id,
            account=account,
            model=order.model,
            charge=charge,
            created_at=now,
            updated_at=now,
            client_request_id=order.client_request_id,
            options=order.options,
        )
        self.by_id[generation.id] = generation
        return generation

    async def _start(self, generation: Generation) -> None:
        options = generation.options
        end: Status = "failed" if options.fails else "succeeded"
        if (options.callback or self._faults.deliveries).early:
            await self._move(generation, end)
        elif options.seconds is not None or not self._scheduler.manual:
            seconds = generation.model.seconds / self._settings.speed if options.seconds is None else options.seconds
            self._scheduler.call_later(seconds / 5, partial(self._progress, generation, "processing"))
            self._scheduler.call_later(seconds, partial(self._progress, generation, end))

    async def _move(self, generation: Generation, status: Status) -> None:
        generation.move(status, self._clock.now())
        if generation.is_terminal:
            self._accounts.settle(generation.charge, generation.charge.reserved if status == "succeeded" else 0)
            await self._publisher.publish(generation, status)

    async def _progress(self, generation: Generation, status: Status) -> None:
        """The course of time; a test that was faster wins."""
        if generation.status == "queued" or (generation.status == "processing" and status != "processing"):
            await self._move(generation, status)
