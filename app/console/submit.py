"""A form that creates a generation, as a program would; sending it twice pays once."""

from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Request, Response

from app.console.filters import segment
from app.console.pages import Console
from app.core.auth import Caller, Role
from app.core.errors import RequestInvalid, ServiceError
from app.core.records import dump_json
from app.gateway.models_cache import CachedModels
from app.rivya.payloads import json_object
from app.submission.models import read_create, read_key

_EMPTY: Final = {"model": "", "prompt": "", "params": "", "client_request_id": ""}


def router(console: Console) -> APIRouter:
    """The page and its parts."""
    routes, submissions = console.router(), console.submissions

    def form(request: Request, fields: dict[str, str], *, status: int = 200, error: str | None = None) -> Response:
        """The form with these fields; its key makes sure that it is paid once, also if it is sent again."""
        fields = {**_EMPTY, "key": submissions.new_key(), **fields}
        return console.page(request, "submit.html", status=status, title="New generation", fields=fields, error=error)

    @routes.get("/new")
    async def show_form(request: Request, _: Annotated[Caller, Depends(console.require(Role.WRITE))]) -> Response:
        """An empty form."""
        return form(request, {})

    @routes.get("/new/models")
    async def list_models(request: Request, _: Annotated[Caller, Depends(console.require(Role.WRITE))]) -> Response:
        """Rivya's models as options of the field; empty where Rivya does not answer."""
        try:
            models = await console.gateway.models_cache.best()
        except ServiceError:
            models = None
        categories = models.categories if isinstance(models, CachedModels) else {}
        return console.page(request, "models.html", categories=categories)

    @routes.post("/new")
    async def submit(request: Request, caller: Annotated[Caller, Depends(console.require(Role.WRITE))]) -> Response:
        """Create the generation and show it; else the form again, with what Rivya or the receiver says."""
        fields: dict[str, str] = request.state.form
        try:
            create, key = read_create(_body(fields)), read_key([fields.get("key", "")])
            await console.audit.record_act(request)
            reply = await submissions.submit(create, key or submissions.new_key(), caller)
        except ServiceError as error:
            return form(request, fields, status=error.status, error=error.message)
        answer: dict[str, Any] = json_object(reply.body) or {}
        if reply.status >= 300:
            message = answer.get("error", {}).get("message") or f"Rivya answered with the status {reply.status}."
            return form(request, fields, status=reply.status, error=message)
        return console.redirect(request, f"/console/generations/{segment(answer.get('id', ''))}", notice="Submitted.")

    return routes


def _body(fields: dict[str, str]) -> bytes:
    """The create as a program would send it. Raises `RequestInvalid` for parameters that are no JSON object."""
    members: dict[str, Any] = {
        name: fields[name] for name in ("model", "prompt", "client_request_id") if fields.get(name)
    }
    if fields.get("params", "").strip():
        try:
            params = orjson.loads(fields["params"])
        except orjson.JSONDecodeError as error:
            raise RequestInvalid(
                f"params: is not JSON ({error.msg}, line {error.lineno}, column {error.colno})."
            ) from None
        if not isinstance(params, dict):
            raise RequestInvalid('params: must be a JSON object, such as {"aspectRatio": "1:1"}.')
        members["params"] = params
    return dump_json(members)
