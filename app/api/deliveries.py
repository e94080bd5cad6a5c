"""/api/v1/deliveries: the recorded deliveries as evidence; their headers and bodies only for the role admin."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from app.api.parameters import DeliveryParameters, read_list
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

    @routes.get("/deliveries", summary="List deliveries", response_model=DeliveryListOut, responses=errors(400))
    async def list_deliveries(
        parameters: Annotated[DeliveryParameters, Query()],
        caller: Annotated[Caller, Depends(access.require(Role.READ))],
    ) -> Response:
        """Newest first. `received_after` includes its time and `received_before` excludes it."""
        items, next_cursor = await read_list(queries.deliveries, parameters, caller)
        return answer(list_of([render_delivery(item) for item in items], next_cursor=next_cursor))

    @routes.get(
        "/deliveries/{event_id:path}", summary="Read a delivery", response_model=EvidenceOut, responses=errors(404)
    )
    async def get_delivery(event_id: str, caller: Annotated[Caller, Depends(access.require(Role.READ))]) -> Response:
        """The delivery; for the role admin also its headers and its bytes."""
        delivery = await read_one(queries, event_id, caller)
        evidence = render_evidence(delivery) if caller.role.allows(Role.ADMIN) else {}
        return answer({**render_delivery(delivery), **evidence})

    return routes


async def read_one(queries: Queries, event_id: str, caller: Caller) -> StoredDelivery:
    """The delivery of this event. Raises `NotFound`, also if the caller may not see its generation."""
    delivery = await queries.delivery(event_id) if usable_id(event_id) is not None else None
    if delivery is not None and caller.owner is not None:
        generation_id = delivery.generation_id or ""
        generation = (await queries.generations_by_id([generation_id])).get(generation_id)
        if generation is None or not is_visible(generation, caller.owner):
            delivery = None
    if delivery is None:
        raise NotFound("No delivery with this event id was ever recorded.")
    return delivery
