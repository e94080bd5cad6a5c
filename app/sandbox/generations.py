"""All generations: created once per idempotency key, moved through their statuses, published when they end."""

from functools import partial
from typing import Any

from app.sandbox.accounts import Charge, CreditAccounts, Idempotency, Records
from app.sandbox.clock import new_id
from app.sandbox.delivery import EventPublisher
from app.sandbox.models import Generation, GenerationRequest, Status, catalogue
from app.sandbox.responses import invalid, validate
from app.sandbox.settings import Context

_NOT_IN_A_SHORT_CREATE = ("final_credits", "created_at", "updated_at")


class Generations:
    """The generations of every account, oldest first."""

    def __init__(self, context: Context, publisher: EventPublisher, accounts: CreditAccounts) -> None:
        self._context = context
        self._publisher = publisher
        self._accounts = accounts
        self._idempotency = Idempotency(context.keep)
        self.models = catalogue()
        self.by_id: Records[Generation] = Records("Generation", context.keep)

    async def create(self, account: str, body: dict[str, Any], *, key: str | None) -> dict[str, Any]:
        """The object of a new generation, or the first answer to a used key. Raises `RivyaError`."""
        known = self._idempotency.find(account, key, body)
        if known is not None:
            return known
        generation = self._open(account, validate(GenerationRequest, body), key)
        answer = self.as_json(generation)
        if self._context.settings.short_create:
            answer = {name: value for name, value in answer.items() if name not in _NOT_IN_A_SHORT_CREATE}
        self._idempotency.store(account, key, body, answer=answer)
        await self._start(generation)
        return answer

    async def move(self, generation: Generation, status: Status) -> None:
        """Set the status and send the deliveries that are due by it. Raises ValueError for a step backwards."""
        generation.move(status, self._context.clock.now())
        if generation.is_terminal:
            self._accounts.settle(generation.charge, generation.charge.reserved if status == "succeeded" else 0)
            await self._publisher.publish(generation, status)

    def as_json(self, generation: Generation) -> dict[str, Any]:
        """The object as the API answers it."""
        if not self._context.settings.echo_client_request_id:
            return generation.as_json()
        return {**generation.as_json(), "client_request_id": generation.client_request_id}

    def _open(self, account: str, request: GenerationRequest, key: str | None) -> Generation:
        model = self.models.get(request.model)
        if model is None or not model.is_generative:
            raise invalid(f"model {request.model!r} can't be used for generations.")
        charge = Charge(account, key, new_id("task"), model.base_credits)
        self._accounts.reserve(charge)
        now = self._context.clock.now()
        trace, params = request.client_request_id, request.sandbox_params
        generation = Generation(charge.generation_id, account, model, charge, now, now, trace, params)
        self.by_id[generation.id] = generation
        return generation

    async def _start(self, generation: Generation) -> None:
        params, scheduler, seconds = generation.params, self._context.scheduler, generation.params.seconds
        if seconds is None and not scheduler.manual:
            seconds = generation.model.seconds / self._context.settings.speed
        end: Status = "failed" if params.fail else "succeeded"
        if (params.callback or self._context.faults.deliveries).early:
            await self.move(generation, end)
        elif seconds is not None:
            scheduler.call_later(seconds / 5, partial(self._progress, generation, "processing"))
            scheduler.call_later(seconds, partial(self._progress, generation, end))

    async def _progress(self, generation: Generation, status: Status) -> None:
        """Move, unless the generation has this status already, because a test has moved it."""
        if generation.can_become(status):
            await self.move(generation, status)
