"""/api/v1/usage: generations and their credits, by token name, model and day."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from app.api.answers import answer
from app.api.document_errors import errors
from app.api.document_usage import UsageListOut
from app.api.parameters import UsageParameters
from app.api.usage_window import WindowInvalid, window
from app.core.auth import Access, Role
from app.core.clock import Clock
from app.ledger.queries import Queries
from app.ledger.serializers import moment
from app.ledger.sql import UsageLine

MOST_LINES = 10_000


def router(queries: Queries, access: Access, *, clock: Clock) -> APIRouter:
    """The route about usage."""
    routes = APIRouter(prefix="/api/v1", tags=["usage"])

    @routes.get(
        "/usage",
        summary="Sum generations and credits by caller",
        response_model=UsageListOut,
        responses=errors(400),
        dependencies=[Depends(access.require(Role.READ))],
    )
    async def sum_usage(parameters: Annotated[UsageParameters, Query()]) -> Response:
        """By the name of the token that submitted them, model, and UTC day of `tracking.first_seen_at`.

        Generations only: what chat costs is in its own answers. A credit reserved counts as reserved for ever, a final
        one once Rivya has told it. `from` and `to` are days or whole hours in UTC. At most 366 days and 10,000 lines.
        """
        asked = window(parameters.first, parameters.to, now=clock.now())
        lines = await queries.usage(asked.first, asked.last_hour_ends, most=MOST_LINES + 1)
        if len(lines) > MOST_LINES:
            raise WindowInvalid(f"from, to: hold more than {MOST_LINES} lines; ask for a shorter time.")
        data = [_rendered(line) for line in lines]
        return answer({"object": "list", "from": moment(asked.first), "to": moment(asked.end), "data": data})

    return routes


def _rendered(line: UsageLine) -> dict[str, Any]:
    return {
        "day": line.day.isoformat(),
        "submitted_by": line.submitted_by,
        "model": line.model,
        "generations": line.generations,
        "open": line.open,
        "reserved_credits": line.reserved_credits,
        "final_credits": line.final_credits,
    }
