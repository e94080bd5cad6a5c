"""The routes of an operator: poll or delete a generation, replay deliveries, the audit. All need the role admin."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.parameters import AuditParameters, Instant
from app.api.schemas import answer, errors
from app.core.audit import Audit
from app.core.auth import Access, Role
from app.core.errors import NotFound, ServiceError
from app.ledger.decide import Recorded
from app.ledger.models import DeliveryFilter, Outcome
from app.ledger.serializers import render
from app.operations.commands import GenerationCommands, Replay
from app.rivya.errors import RivyaError, RivyaNotFound
from app.rivya.payloads import usable_id

MOST_REPLAYED = 1000


class ReplayRequest(BaseModel):
    """Which deliveries; all of them without a filter. They are replayed oldest first."""

    model_config = ConfigDict(extra="forbid")

    event_id: str | None = Field(None, min_length=1, max_length=500, pattern=r"^[^\x00]*$")
    since: Instant | None = Field(None, description="Received at this time or later.")
    until: Instant | None = Field(None, description="Received before this time.")
    outcome: Outcome | None = None
    apply: bool = Field(default=False, strict=True, description="Write; false only returns what would change.")

    @property
    def chosen(self) -> DeliveryFilter:
        """The filter for the query."""
        return DeliveryFilter(
            event_id=self.event_id, received_after=self.since, received_before=self.until, outcome=self.outcome
        )


class ReplayedOut(BaseModel):
    """One delivery and what became of it."""

    event_id: str
    outcome: str = Field(description="as it is stored")
    result: str = Field(description="the outcome now; skipped: it has no status, or its body was pruned")
    effect: str = Field(description="the result, and what becomes of the generation")
    received_at: datetime


class ReplayListOut(BaseModel):
    """The first 1,000 at most."""

    object: str = "list"
    data: list[ReplayedOut]
    applied: bool
    more: bool = Field(description="more are chosen than were replayed; go on from the last `received_at`")


_ENTRY: dict[str, Any] = {
    "id": "0196b9a4-3f00-7d0e-8a51-2f3b6c9d1e70",
    "recorded_at": "2026-05-10T00:00:00Z",
    "actor": "ops",
    "action": "token.created",
    "target": "shop",
    "detail": "role write-own; 500 credits a day",
    "remote_address": "203.0.113.9",
    "request_id": "req_1",
}


class AuditEntryView(BaseModel):
    """One act, or one refused call of an admin's route."""

    model_config = ConfigDict(json_schema_extra={"example": _ENTRY})

    id: str
    recorded_at: datetime
    actor: str = Field(description="name of the token, or `command line`")
    action: str = Field(description="such as `token.created`, `call.refused`, or the method and path of an act")
    target: str | None = Field(description="what was acted upon")
    detail: str | None
    remote_address: str | None
    request_id: str | None


class AuditView(BaseModel):
    """The audit, newest first."""

    object: Literal["list"] = "list"
    data: list[AuditEntryView]
    next_cursor: str | None = Field(description="null: nothing follows")


def _check_id(generation_id: str) -> None:
    if usable_id(generation_id) is None:
        raise NotFound("No generation can have this id.")


async def poll_now(commands: GenerationCommands, generation_id: str) -> Recorded:
    """What Rivya's answer did to the record. Raises `ServiceError` if Rivya does not know the generation, or fails."""
    try:
        return await commands.poll(generation_id)
    except RivyaNotFound:
        raise NotFound("Rivya does not know this generation.") from None
    except RivyaError as error:
        code = getattr(error, "code", None) or "no answer"
        raise ServiceError(f"Rivya failed ({code}); nothing was changed.", status=503, code="not_now") from error


def router(commands: GenerationCommands, replay: Replay, audit: Audit, access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1", dependencies=[Depends(access.require(Role.ADMIN))])

    @routes.post(
        "/generations/{generation_id:path}/poll",
        summary="Ask Rivya about a generation now",
        tags=["generations"],
        responses=errors(404),
    )
    async def poll(generation_id: str) -> Response:
        """The generation as it is recorded then, with `outcome`: what Rivya's answer did to the record."""
        _check_id(generation_id)
        recorded = await poll_now(commands, generation_id)
        known: dict[str, Any] = {} if recorded.generation is None else render(recorded.generation)
        return answer({**known, "outcome": recorded.outcome})

    @routes.delete(
        "/generations/{generation_id:generation}",
        summary="Delete a generation",
        tags=["generations"],
        responses=errors(404, 409),
    )
    async def delete(
        generation_id: str,
        *,
        even_open: Annotated[bool, Query(alias="open", description="Also if its outcome is not known yet.")] = False,
    ) -> Response:
        """Also its history and stored bodies; later events about it change nothing."""
        _check_id(generation_id)
        await commands.delete(generation_id, even_open=even_open)
        return answer({"object": "generation", "id": generation_id, "deleted": True})

    @routes.post("/deliveries/replay", summary="Record deliveries again", tags=["deliveries"], responses=errors(400))
    async def replay_deliveries(body: ReplayRequest) -> ReplayListOut:
        """As reports of the operator; the stored deliveries stay as they are."""
        chosen, more = [], False
        async for replayed in replay.apply(body.chosen) if body.apply else replay.dry_run(body.chosen):
            delivery = replayed.delivery
            shown = {"result": replayed.result, "effect": replayed.effect, "received_at": delivery.received_at}
            chosen.append(ReplayedOut(event_id=delivery.event_id, outcome=delivery.outcome, **shown))
            if more := len(chosen) == MOST_REPLAYED:
                break
        return ReplayListOut(data=chosen, applied=body.apply, more=more)

    @routes.get("/audit", summary="Who did what", tags=["operations"], responses=errors(400))
    async def list_audit(parameters: Annotated[AuditParameters, Query()]) -> AuditView:
        """Changes of tokens, acts of operators and refused calls of their routes, newest first, for 400 days."""
        page = await audit.list(parameters.chosen, after=parameters.cursor, limit=parameters.limit)
        return AuditView(data=[AuditEntryView(**row) for row in page.rows], next_cursor=page.last)

    return routes
