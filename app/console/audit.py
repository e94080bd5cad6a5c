"""Who did what: the acts of operators and the refused calls of their routes, newest first."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.api.parameters import AuditParameters
from app.console.pages import Console
from app.console.parameters import parse_query
from app.core.auth import Caller, Role


def router(console: Console) -> APIRouter:
    """The page."""
    routes = console.router()

    @routes.get("/audit")
    async def list_audit(request: Request, _: Annotated[Caller, Depends(console.require(Role.ADMIN))]) -> Response:
        """The audit with its filters."""
        parameters = parse_query(request, AuditParameters)
        rows = await console.audit.list(parameters.chosen, after=parameters.cursor, limit=parameters.limit + 1)
        entries = rows[: parameters.limit]
        next_cursor = entries[-1]["id"] if len(rows) > parameters.limit else None
        return console.page(request, "audit.html", title="Audit", entries=entries, next_cursor=next_cursor)

    return routes
