"""/api/v1/generations: read one, wait for one, list them, track one made elsewhere, see its history."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.types import Receive, Scope, Send

from app.api import cursor
from app.api.answers import answer, list_of
from app.api.document_errors import errors
from app.api.documents import GenerationListOut, GenerationOut, TransitionListOut
from app.api.generation_lane import DEADLINE, READ
from app.api.parameters import GenerationParameters
from app.api.preferences import MOST_SECONDS, Wait, wanted
from app.api.shared_reads import Found
from app.api.track import Track, checked_id, read_body
from app.api.waiting import CallerGone, Waiting
from app.core.auth import Access, Role
from app.core.clock import Clock
from app.core.errors import ServiceError
from app.ledger.decide import Recorded
from app.ledger.models import Generation, Report, Source, Tracked
from app.ledger.queries import Queries
from app.ledger.serializers import render, render_transition
from app.rivya.parsing import usable_name

_TRACK_BODY: dict[str, Any] = {
    "requestBody": {"required": False, "content": {"application/json": {"schema": Track.model_json_schema()}}}
}
_CREATED: dict[int | str, dict[str, Any]] = {201: {"model": GenerationOut, "description": "It was not known before."}}


class NoAnswer(Response):
    """Sends nothing: the connection is lost."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do nothing."""


class GenerationUnknown(ServiceError):
    """The record has no such generation."""

    status = 404
    code = "not_found"

    def __init__(self) -> None:
        super().__init__("The receiver knows no generation with this id.")


def router(
    queries: Queries,
    access: Access,
    waiting: Waiting,
    record: Callable[[Report], Awaitable[Recorded]],
    *,
    clock: Clock,
) -> APIRouter:
    """The routes about generations, the create excepted. `record` returns once the report is committed."""
    routes = APIRouter(prefix="/api/v1", tags=["generations"])
    reads = [Depends(access.require(Role.READ))]
    writes = [Depends(access.require(Role.WRITE))]

    @routes.get(
        "/generations",
        summary="List generations",
        response_model=GenerationListOut,
        responses=errors(400),
        dependencies=reads,
    )
    async def list_generations(parameters: Annotated[GenerationParameters, Query()]) -> Response:
        """Newest first, by when the receiver first heard of them (`tracking.first_seen_at`).

        `created_after` includes its moment and `created_before` excludes it, so that windows join without overlap.
        """
        chosen = parameters.chosen
        after = cursor.decode(parameters.cursor, chosen) if parameters.cursor is not None else None
        page = await queries.generations(chosen, after=after, limit=parameters.limit)
        following = cursor.encode(page.last, chosen) if page.last is not None else None
        return answer(list_of([render(generation) for generation in page.items], next_cursor=following))

    @routes.get(
        "/generations/{generation_id}",
        summary="Read a generation, or wait for its outcome",
        response_model=GenerationOut,
        responses=errors(400, 404),
        dependencies=reads,
    )
    async def get_generation(
        request: Request,
        generation_id: str,
        wait: Annotated[
            float | None, Query(ge=0, le=MOST_SECONDS, description="Seconds to wait for the outcome.")
        ] = None,
        prefer: Annotated[
            list[str] | None, Header(description="`wait=SECONDS`, at most 60; the query parameter wins.")
        ] = None,
    ) -> Response:
        """Answers as soon as the generation is settled, or when the time is over with what is known then."""
        return await _awaited(request, waiting, generation_id, wanted(wait, prefer or ()))

    @routes.put(
        "/generations/{generation_id}",
        summary="Track a generation made elsewhere",
        response_model=GenerationOut,
        responses=errors(400, 413, also=_CREATED),
        dependencies=writes,
        openapi_extra=_TRACK_BODY,
    )
    async def track_generation(generation_id: str, request: Request) -> Response:
        """Idempotent: 201 where the generation was not known, 200 where it was; its status never moves back."""
        identity = checked_id(generation_id)
        said = Track.read(await read_body(request))
        claim = Tracked(id=identity, model=said.model, client_request_id=said.client_request_id)
        recorded = await record(
            Report(source=Source.OPERATOR, reported_at=clock.now(), claim=claim, metadata=said.metadata)
        )
        if recorded.generation is None:
            raise GenerationUnknown
        is_new = recorded.transition is not None and recorded.transition.from_status is None
        return answer(render(recorded.generation), status=201 if is_new else 200)

    @routes.get(
        "/generations/{generation_id}/transitions",
        summary="The history of a generation",
        response_model=TransitionListOut,
        responses=errors(404),
        dependencies=reads,
    )
    async def list_transitions(generation_id: str) -> Response:
        """Every status change that was accepted, oldest first, with who told of it."""
        history = await queries.transitions(generation_id) if usable_name(generation_id) is not None else []
        if not history:
            raise GenerationUnknown
        return answer(list_of([render_transition(transition) for transition in history]))

    return routes


async def _awaited(request: Request, waiting: Waiting, generation_id: str, wish: Wait) -> Response:
    try:
        found = await _read(request, waiting, generation_id, wish.seconds)
    except CallerGone:
        return NoAnswer()
    if found is None:
        raise GenerationUnknown
    headers = {"Preference-Applied": wish.applied} if wish.applied is not None else None
    return answer(render(found), headers=headers)


async def _read(request: Request, waiting: Waiting, generation_id: str, seconds: float) -> Generation | None:
    """The generation, from where the express lane left off, if it did."""
    state = request.scope["state"]
    if state.get(READ) is not None:
        found: Found = await state.pop(READ)  # kept in no variable: its error would hold this frame, and that it
        return found.get(generation_id)
    if usable_name(generation_id) is None:
        return None
    if DEADLINE in state:
        seconds = state[DEADLINE] - asyncio.get_running_loop().time()
    return await waiting.generation(generation_id, request.receive, seconds=seconds)
