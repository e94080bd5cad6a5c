"""One operation of the public API: counted, spoiled when told, authenticated, answered or refused in Rivya's shape."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.clock import Scheduler
from app.sandbox.faults import ApiFault, mutate_response
from app.sandbox.responses import NoAnswer, RivyaError, json_answer, json_object, refusal
from app.sandbox.state import CallRecord, Sandbox


@dataclass(frozen=True)
class Call:
    """An authenticated call; `account` is empty on public routes."""

    sandbox: Sandbox
    request: Request
    account: str
    called: CallRecord

    async def body(self) -> dict[str, Any]:
        """The JSON object sent; raises `validation_failed`."""
        return await json_object(self.request)

    def listed(self, items: list[dict[str, Any]]) -> Response:
        """A list in the shape the settings choose."""
        as_array = self.sandbox.settings.list_shape == "array"
        return json_answer(items if as_array else {"object": "list", "data": items})


@dataclass(frozen=True)
class Operation:
    """A named route of the public API; without a scope it needs no key."""

    name: str
    method: str
    path: str
    scope: str | None
    handle: Callable[[Call], Awaitable[Response]]

    def route(self, sandbox: Sandbox) -> Route:
        """The operation, bound to a sandbox."""
        return Route(f"/api/v1{self.path}", partial(self._answer, sandbox), methods=[self.method], name=self.name)

    async def _answer(self, sandbox: Sandbox, request: Request) -> Response:
        called = sandbox.calls.record(
            self.name,
            method=request.method,
            path=request.url.path,
            idempotency_key=request.headers.get("idempotency-key"),
        )
        act = partial(self._act, sandbox, request, called)
        fault = sandbox.faults.take_api(self.name)
        called.fault = fault
        try:
            response = await act() if fault is None else await apply_fault(fault, act, sandbox.scheduler)
        except ClientDisconnect:
            return refusal("validation_failed", "The body did not come whole.", status=400)  # as if anybody read it
        called.status = None if fault is not None and fault.connection else response.status_code
        return response

    async def _act(self, sandbox: Sandbox, request: Request, called: CallRecord) -> Response:
        try:
            return await self.handle(Call(sandbox, request, self._account(sandbox, request), called))
        except RivyaError as error:
            return refusal(error.code, error.message, status=error.status)

    def _account(self, sandbox: Sandbox, request: Request) -> str:
        if self.scope is None:
            return ""
        return sandbox.keys.authenticate(request.headers.get("authorization"), self.scope).account


# Spoils the answer to one call as an `ApiFault` says.


_CODE_OF_STATUS = {
    400: "validation_failed",
    401: "api_key_invalid",
    403: "api_scope_denied",
    404: "not_found",
    409: "idempotency_conflict",
    429: "rate_limited",
    503: "public_api_disabled",
}
_GARBAGE = b"<html>\xff\xfe this is not JSON"


async def apply_fault(fault: ApiFault, act: Callable[[], Awaitable[Response]], scheduler: Scheduler) -> Response:
    """The spoiled answer; whether the work was done depends on the fault's `when`."""
    done = await act() if fault.when == "after" else None
    if fault.hang:
        await scheduler.sleep(fault.hang)
    if fault.connection is not None:
        return NoAnswer(fault.connection)
    if fault.status is not None:
        return _spoiled(fault, fault.status)
    answer = done or await act()
    return answer if fault.alter is None else mutate_response(answer, fault.alter)


def _spoiled(fault: ApiFault, status: int) -> Response:
    match fault.body:
        case "error":
            code = fault.code or _CODE_OF_STATUS.get(status, "internal_error")
            response = refusal(code, "The sandbox was told to answer so.", status=status)
        case "garbage":
            response = Response(_GARBAGE, status, media_type="text/html")
        case "empty":
            response = Response(b"", status)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    return response
