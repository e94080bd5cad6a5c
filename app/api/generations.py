"""/api/v1/generations: read one, wait for one, list them, track one made elsewhere, see its history."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.api.parameters import GenerationParameters, read_list, without_nul
from app.api.schemas import GenerationListOut, GenerationOut, TransitionListOut, answer, errors, list_of
from app.api.waiting import DEADLINE, READ, GenerationsById, Waiting
from app.core.auth import Access, Caller, Forbidden, Role
from app.core.bodies import describe_body, read_model
from app.core.clock import Clock
from app.core.errors import NotFound, RequestInvalid
from app.core.middleware import ensure_request_id
from app.core.models import Claim
from app.ledger.callbacks import Callbacks
from app.ledger.decide import Recorded
from app.ledger.models import Generation, Report, Source, Status, is_visible, may_track
from app.ledger.queries import Queries
from app.ledger.serializers import render, render_transition
from app.rivya.payloads import LONGEST_ID, LONGEST_NAME, checked_metadata, usable_id, usable_name

_UNKNOWN = "The receiver knows no generation with this id."


def _name(value: str) -> str:
    if usable_name(value) is None:
        message = f"must be 1 to {LONGEST_NAME} printable characters"
        raise ValueError(message)
    return value


class Track(BaseModel):
    """All optional; what is left out stays as it is known."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "example": {"model": "z-image", "client_request_id": "order-1", "metadata": {"customer": "c-42"}}
        },
    )

    model: Annotated[str, AfterValidator(_name), Field(max_length=LONGEST_NAME)] | None = Field(
        None, description="Decides when it is first polled; ignored where the model is known."
    )
    client_request_id: Annotated[str, AfterValidator(without_nul), Field(min_length=1, max_length=128)] | None = Field(
        None, description="Your own trace id; ignored where one is known."
    )
    metadata: Annotated[dict[str, Any], AfterValidator(checked_metadata)] | None = Field(
        None, description="Any object of yours, at most 16 KiB as JSON; replaces the one before."
    )
    callback_url: str | None = Field(
        None,
        description="Called once with the final event, also if that has come already, signed with the secret of GET "
        "/api/v1/callback-secret; replaces the token's URL before.",
    )


def checked_id(generation_id: str) -> str:
    """`generation_id`, if a request to Rivya can contain it. Raises `RequestInvalid`."""
    if usable_id(generation_id) is None or generation_id in {".", ".."}:
        message = f"generation_id: must be 1 to {LONGEST_ID} printable characters."
        raise RequestInvalid(message)
    return generation_id


_WAIT = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds to wait at most, and the response header if the caller asked by `Prefer: wait=` (RFC 7240)."""

    seconds: float
    applied: str | None = None
    """The value of `Preference-Applied`."""


def requested_wait(query: float | None, prefer: Sequence[str], *, max_seconds: float) -> Wait:
    """The requested wait, `max_seconds` at most: the query parameter wins, and an invalid preference is ignored."""
    if query is not None:
        return Wait(min(query, max_seconds))
    for preference in ",".join(prefer).split(","):
        match = _WAIT.fullmatch(preference.partition(";")[0])
        if match:  # if it is given twice, the first counts
            preferred = min(int(match[1]), int(max_seconds))
            return Wait(preferred, applied=f"wait={preferred}")
    return Wait(0)


_CREATED: dict[int | str, dict[str, Any]] = {201: {"model": GenerationOut, "description": "It was not known before."}}


def router(
    queries: Queries,
    access: Access,
    waiting: Waiting,
    record: Callable[[Report], Awaitable[Recorded]],
    callbacks: Callbacks,
    *,
    clock: Clock,
) -> APIRouter:
    """The routes about generations, the create excepted. `record` returns once the report is committed."""
    routes = APIRouter(prefix="/api/v1", tags=["generations"])

    @routes.get("/generations", summary="List generations", response_model=GenerationListOut, responses=errors(400))
    async def list_generations(
        parameters: Annotated[GenerationParameters, Query()],
        caller: Annotated[Caller, Depends(access.require(Role.READ))],
    ) -> Response:
        """Newest first, by when the receiver first heard of them (`tracking.first_seen_at`).

        `created_after` includes its time and `created_before` excludes it, so that windows join without overlap.
        """
        items, next_cursor = await read_list(queries.generations, parameters, caller)
        return answer(list_of([render(generation) for generation in items], next_cursor=next_cursor))

    @routes.get(
        "/generations/{generation_id:path}/transitions",
        summary="The history of a generation",
        response_model=TransitionListOut,
        responses=errors(404),
    )
    async def list_transitions(
        generation_id: str, caller: Annotated[Caller, Depends(access.require(Role.READ))]
    ) -> Response:
        """Every status change that was accepted, oldest first, with its source; and who changed the metadata."""
        generation = await read_one(queries, generation_id, caller)
        history = [render_transition(transition) for transition in await queries.transitions(generation_id)]
        return answer(list_of(history) | {"metadata_changes": list(generation.metadata_changes or ())})

    @routes.get(
        "/generations/{generation_id:generation}",
        summary="Read a generation, or wait for its outcome",
        response_model=GenerationOut,
        responses=errors(400, 404),
    )
    async def get_generation(
        request: Request,
        generation_id: str,
        caller: Annotated[Caller, Depends(access.require(Role.READ))],
        wait: Annotated[
            float | None,
            Query(
                ge=0,
                allow_inf_nan=False,
                description="Seconds to wait for the outcome, RECEIVER_MAX_WAIT (55) at most.",
            ),
        ] = None,
        prefer: Annotated[list[str] | None, Header(description="`wait=SECONDS`; the query parameter wins.")] = None,
    ) -> Response:
        """Answers as soon as the generation is settled, or when the time is over with what is known then."""
        requested = requested_wait(wait, prefer or (), max_seconds=waiting.max_seconds)
        if caller.owner is not None:  # how long a wait takes would tell that it exists
            await read_one(queries, generation_id, caller)
        async with access.while_waiting(caller) if requested.seconds else access.while_valid(caller):
            return await _awaited(request, waiting, generation_id, requested, caller)

    @routes.put(
        "/generations/{generation_id:generation}",
        summary="Track a generation made elsewhere",
        response_model=GenerationOut,
        responses=errors(400, 404, 413, also=_CREATED),
        openapi_extra=describe_body(Track, is_required=False),
    )
    async def track_generation(
        generation_id: str, request: Request, caller: Annotated[Caller, Depends(access.require(Role.WRITE))]
    ) -> Response:
        """Idempotent: 201 where the generation was not known, 200 where it was; its status never moves back.

        Metadata belongs to the token that sets it first; only that one and the role admin may replace it (403).
        """
        identity = checked_id(generation_id)
        track = await read_model(request, Track)
        if track.callback_url is not None:
            await callbacks.check(track.callback_url)
        claim = Claim(identity, Status.QUEUED, model=track.model, client_request_id=track.client_request_id)
        report = Report(
            source=Source.OPERATOR,
            reported_at=clock.now(),
            claim=claim,
            token=caller.name,
            metadata=track.metadata,
            is_admin=caller.role.allows(Role.ADMIN),
            is_fenced=caller.role.is_fenced,
        )
        is_looked_up = track.metadata is not None or caller.role.is_fenced
        known = (await queries.generations_by_id([identity])).get(identity) if is_looked_up else None
        if known is not None and not may_track(known, caller.owner):
            raise NotFound(_UNKNOWN)
        callback = partial(callbacks.set, identity, track.callback_url, token=caller.name)
        return await _tracked(request, report, known, record, callback)

    return routes


async def _tracked(
    request: Request,
    report: Report,
    known: Generation | None,
    record: Callable[[Report], Awaitable[Recorded]],
    store_callback: Callable[[], Awaitable[None]],
) -> Response:
    """The generation once it is recorded with its callback; 403 with what stays, if the metadata is another token's."""
    generation, is_new = known, False
    if known is None or report.may_change_metadata(known.metadata_by):
        recorded = await record(report)
        generation = recorded.generation
        is_new = recorded.transition is not None and recorded.transition.from_status is None
    if generation is None or not is_visible(generation, request.state.caller.owner):
        raise NotFound(_UNKNOWN)
    shown = render(generation)
    if report.metadata is None or report.may_change_metadata(generation.metadata_by):
        await store_callback()
        return answer(shown, status=201 if is_new else 200)
    message = f"The metadata of this generation was set by the token {generation.metadata_by}, and belongs to it."
    detail = {"code": Forbidden.code, "message": message, "requestId": ensure_request_id(request.scope)}
    return answer({"error": detail, "metadata": shown["metadata"], "tracking": shown["tracking"]}, status=403)


async def read_one(queries: Queries, generation_id: str, caller: Caller) -> Generation:
    """The generation with this id. Raises `NotFound`, also if the caller may not see it."""
    known = await queries.generations_by_id([generation_id]) if usable_id(generation_id) is not None else {}
    if generation_id not in known or not is_visible(known[generation_id], caller.owner):
        raise NotFound(_UNKNOWN)
    return known[generation_id]


async def _awaited(request: Request, waiting: Waiting, generation_id: str, wait: Wait, caller: Caller) -> Response:
    generation = await _read(request, waiting, generation_id, wait.seconds)
    if generation is None or not is_visible(generation, caller.owner):
        raise NotFound(_UNKNOWN)
    headers = {"Preference-Applied": wait.applied} if wait.applied is not None else None
    return answer(render(generation), headers=headers)


async def _read(request: Request, waiting: Waiting, generation_id: str, seconds: float) -> Generation | None:
    """The generation, or None; goes on with the read or the wait that the fast path began."""
    state = request.scope["state"]
    if state.get(READ) is not None:
        # Not assigned to a variable: its error would refer to this frame, and the frame to the error.
        generations: GenerationsById = await state.pop(READ)
        return generations.get(generation_id)
    if usable_id(generation_id) is None:
        return None
    if DEADLINE in state:
        seconds = state[DEADLINE] - asyncio.get_running_loop().time()
    return await waiting.generation(generation_id, request.receive, seconds=seconds)
