"""GET /api/v1/audit: who did what, when and from where; for an admin."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.parameters import AuditParameters
from app.api.schemas import errors
from app.core.audit import Audit
from app.core.auth import Access, Role

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


def router(audit: Audit, access: Access) -> APIRouter:
    """The route."""
    routes = APIRouter(prefix="/api/v1", tags=["operations"])

    @routes.get(
        "/audit",
        summary="Who did what",
        responses=errors(400),
        dependencies=[Depends(access.require(Role.ADMIN))],
    )
    async def list_audit(parameters: Annotated[AuditParameters, Query()]) -> AuditView:
        """Changes of tokens, acts of operators and refused calls of their routes, newest first, for 400 days."""
        page = await audit.list(parameters.chosen, after=parameters.cursor, limit=parameters.limit)
        return AuditView(data=[AuditEntryView(**row) for row in page.rows], next_cursor=page.last)

    return routes
