"""/api/v1/deliveries: the recorded deliveries as evidence; their headers and bodies only for the role admin."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from app.api.parameters import DeliveryParameters, decode, encode
from app.api.schemas import DeliveryListOut, EvidenceOut, answer, errors, list_of
from app.core.auth import Access, Caller, Role
from app.core.errors import NotFound
from app.ledger.models import StoredDelivery, is_visible
from app.ledger.queries import Queries
from app.ledger.serializers import render_delivery, render_evidence
from app.rivya.payloads import usable_id


def router(queries: Queries, access: Access) -> APIRouter:
    """The routes about deliveries."""
    routes = APIRouter(prefix="/api/v1", tags=["deliveries"])

    @routes.get(
        "/deliveries",
        summary="List deliveries",
        response_model=DeliveryListOut,
        responses=errors(400),
    )
    async def list_deliveries(
        parameters: Annotated[DeliveryParameters, Query()],
        caller: Annotated[Caller, Depends(access.require(Role.READ))],
    ) -> Response:
        """Newest first. `received_after` includes its time and `received_before` excludes it."""
        chosen = replace(parameters.chosen, owner=caller.owner)
        after = decode(parameters.cursor, chosen) if parameters.cursor is not None else None
        page = await queries.deliveries(chosen, after=after, limit=parameters.limit)
        following = encode(page.last, chosen) if page.last is not None else None
        return answer(list_of([render_delivery(item) for item in page.items], next_cursor=following))

    @routes.get(
        "/deliveries/{event_id:path}",
        summary="Read a delivery",
        response_model=EvidenceOut,
        responses=errors(404),
    )
    async def get_delivery(event_id: str, caller: Annotated[Caller, Depends(access.require(Role.READ))]) -> Response:
        """The delivery; for the role admin also its headers and its bytes."""
        delivery = await queries.delivery(event_id) if usable_id(event_id) is not None else None
        if delivery is not None and not await _is_visible(queries, delivery, caller):
            delivery = None
        if delivery is None:
            raise NotFound("No delivery with this event id was ever recorded.")
        evidence = render_evidence(delivery) if caller.role.allows(Role.ADMIN) else {}
        return answer({**render_delivery(delivery), **evidence})

    return routes


async def _is_visible(queries: Queries, delivery: StoredDelivery, caller: Caller) -> bool:
    if caller.owner is None:
        return True
    generation_id = delivery.generation_id or ""
    known = await queries.generations_by_id([generation_id])
    return generation_id in known and is_visible(known[generation_id], caller.owner)
