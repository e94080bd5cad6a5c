"""One operation of the public API: counted, spoiled when told, authenticated, answered or refused in Rivya's shape."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.answers import json_answer, refusal
from app.sandbox.bodies import json_object
from app.sandbox.calls import Called
from app.sandbox.errors import RivyaError
from app.sandbox.misbehave import misbehave
from app.sandbox.state import Sandbox


@dataclass(frozen=True)
class Call:
    """An authenticated call; `account` is empty on public routes."""

    sandbox: Sandbox
    request: Request
    account: str
    called: Called

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
        called = sandbox.calls.note(
            self.name,
            method=request.method,
            path=request.url.path,
            idempotency_key=request.headers.get("idempotency-key"),
        )
        act = partial(self._act, sandbox, request, called)
        fault = sandbox.faults.take_api(self.name)
        called.fault = fault
        try:
            response = await act() if fault is None else await misbehave(fault, act, sandbox.work)
        except ClientDisconnect:
            return refusal("validation_failed", "The body did not come whole.", status=400)  # as if anybody read it
        called.status = None if fault is not None and fault.connection else response.status_code
        return response

    async def _act(self, sandbox: Sandbox, request: Request, called: Called) -> Response:
        try:
            return await self.handle(Call(sandbox, request, self._account(sandbox, request), called))
        except RivyaError as error:
            return refusal(error.code, error.message, status=error.status)

    def _account(self, sandbox: Sandbox, request: Request) -> str:
        if self.scope is None:
            return ""
        return sandbox.keys.authenticate(request.headers.get("authorization"), self.scope).account
