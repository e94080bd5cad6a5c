"""An operation of the public API: recorded, authenticated, answered in Rivya's shape, with the faults that apply."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.clock import Scheduler
from app.sandbox.faults import ApiFault, mutate_response
from app.sandbox.responses import NoAnswer, RivyaError, invalid, json_object, json_response
from app.sandbox.state import Sandbox

_CODE_OF_STATUS = {
    400: "validation_failed",
    401: "api_key_invalid",
    403: "api_scope_denied",
    404: "not_found",
    409: "idempotency_conflict",
    429: "rate_limited",
    503: "public_api_disabled",
}


@dataclass(frozen=True)
class Call:
    """An authenticated call; `account` is empty on public routes."""

    sandbox: Sandbox
    request: Request
    account: str

    @property
    def key(self) -> str | None:
        """The idempotency key."""
        return self.request.headers.get("idempotency-key")

    @property
    def id(self) -> str:
        """The id in the path."""
        value: str = self.request.path_params["id"]
        return value

    async def body(self) -> dict[str, Any]:
        """The JSON object in the body. Raises `validation_failed`."""
        return await json_object(self.request)

    def list_response(self, items: list[dict[str, Any]]) -> Response:
        """A list in the shape that the settings choose."""
        is_array = self.sandbox.settings.list_shape == "array"
        return json_response(items if is_array else {"object": "list", "data": items})


@dataclass(frozen=True)
class Operation:
    """A named route of the public API; without a scope it needs no key."""

    name: str
    method: str
    path: str
    scope: str | None
    handle: Callable[[Call], Awaitable[Response]]

    def route(self, sandbox: Sandbox) -> Route:
        """The route that serves this operation of a sandbox."""
        return Route(f"/api/v1{self.path}", partial(self._respond, sandbox), methods=[self.method], name=self.name)

    async def _respond(self, sandbox: Sandbox, request: Request) -> Response:
        record = sandbox.calls.record(self.name, request)
        act = partial(self._act, sandbox, request)
        fault = record.fault = sandbox.faults.take_api(self.name)
        try:
            response = await act() if fault is None else await apply_fault(fault, act, sandbox.scheduler)
        except ClientDisconnect:
            return invalid("The body is incomplete.").response()  # nobody reads it; ASGI demands an answer
        if not isinstance(response, NoAnswer):
            record.status = response.status_code
        return response

    async def _act(self, sandbox: Sandbox, request: Request) -> Response:
        try:
            authorization = request.headers.get("authorization")
            account = sandbox.keys.authenticate(authorization, self.scope).account if self.scope else ""
            return await self.handle(Call(sandbox, request, account))
        except RivyaError as error:
            return error.response()


async def apply_fault(fault: ApiFault, act: Callable[[], Awaitable[Response]], scheduler: Scheduler) -> Response:
    """The response with the fault; `fault.when` decides whether the work is done where the answer is replaced."""
    done = await act() if fault.when == "after" else None
    if fault.hang:
        await scheduler.sleep(fault.hang)
    if fault.connection is not None:
        return NoAnswer(fault.connection)
    if fault.status is not None:
        return _error(fault, fault.status)
    response = done or await act()
    return response if fault.alter is None else mutate_response(response, fault.alter)


def _error(fault: ApiFault, status: int) -> Response:
    match fault.body:
        case "error":
            code = fault.code or _CODE_OF_STATUS.get(status, "internal_error")
            response = RivyaError(code, "A fault of the sandbox.", status=status).response()
        case "garbage":
            response = Response(b"<html>\xff\xfe this is not JSON", status, media_type="text/html")
        case "empty":
            response = Response(b"", status)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    return response
