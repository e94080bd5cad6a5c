"""The operations of the public API: recorded, authenticated, answered in Rivya's shape, with the faults that apply."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.chat import EventStream, encode_event
from app.sandbox.clock import Scheduler
from app.sandbox.faults import ApiFault, mutate_response
from app.sandbox.files import read_form
from app.sandbox.responses import NoAnswer, RivyaError, invalid, json_object, json_response
from app.sandbox.state import Sandbox
from app.sandbox.webhooks import EVENT_TYPES, Endpoint

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


async def _list_models(call: Call) -> Response:
    # Documented as a list object whatever the settings choose.
    models = call.sandbox.generations.models.values()
    return json_response({"object": "list", "data": [model.as_json() for model in models]})


async def _get_credits(call: Call) -> Response:
    return json_response({"current_credits": call.sandbox.accounts.balance(call.account)})


async def _create_generation(call: Call) -> Response:
    answer = await call.sandbox.generations.create(call.account, await call.body(), key=call.key)
    return json_response(answer, status=call.sandbox.settings.create_status)


async def _get_generation(call: Call) -> Response:
    generation = call.sandbox.generations.by_id.find(call.id, call.account)
    generation.polls.append(call.sandbox.calls.now())
    return json_response(call.sandbox.generations.as_json(generation))


async def _create_completion(call: Call) -> Response:
    return json_response(call.sandbox.chat.turn(call.account, await call.body(), key=call.key))


async def _stream_completion(call: Call) -> Response:
    sandbox = call.sandbox
    completion = sandbox.chat.turn(call.account, await call.body(), key=call.key)
    return EventStream(
        sandbox.streams,
        sandbox.streams.begin(completion["id"]),
        encode_event(completion, sandbox.settings.stream_dialect),
        pause=sandbox.settings.stream_pause,
        fault=sandbox.faults.take_stream(),
    )


async def _list_sessions(call: Call) -> Response:
    return call.list_response([session.as_json() for session in reversed(call.sandbox.chat.sessions.of(call.account))])


async def _get_session(call: Call) -> Response:
    return json_response(call.sandbox.chat.sessions.find(call.id, call.account).with_messages())


async def _upload_file(call: Call) -> Response:
    file = call.sandbox.files.upload(call.account, await read_form(call.request))
    return json_response(file.as_json(), status=call.sandbox.settings.create_status)


async def _get_file(call: Call) -> Response:
    return json_response(call.sandbox.files.by_id.find(call.id, call.account).as_json())


async def _list_endpoints(call: Call) -> Response:
    return call.list_response([endpoint.as_json() for endpoint in call.sandbox.endpoints.by_id.of(call.account)])


async def _create_endpoint(call: Call) -> Response:
    endpoint = call.sandbox.endpoints.create(call.account, await call.body())
    return json_response(endpoint.with_secret(), status=call.sandbox.settings.create_status)


async def _get_endpoint(call: Call) -> Response:
    return json_response(_endpoint(call).as_json())


async def _change_endpoint(call: Call) -> Response:
    return json_response(call.sandbox.endpoints.change(_endpoint(call), await call.body()).as_json())


async def _delete_endpoint(call: Call) -> Response:
    call.sandbox.endpoints.remove(_endpoint(call))
    if call.sandbox.settings.delete_status == 204:
        return Response(status_code=204)
    return json_response({"id": call.id, "object": "webhook_endpoint", "deleted": True})


async def _rotate_secret(call: Call) -> Response:
    return json_response(call.sandbox.endpoints.rotate(_endpoint(call)).with_secret())


async def _test_endpoint(call: Call) -> Response:
    return json_response((await call.sandbox.publisher.send_test(_endpoint(call))).as_json())


async def _list_deliveries(call: Call) -> Response:
    # Rivya cannot list what a fault dropped: it was never sent.
    endpoint, log = _endpoint(call), reversed(call.sandbox.sender.log)
    return call.list_response(
        [row.as_json() for row in log if row.endpoint_id == endpoint.id and row.status != "dropped"]
    )


async def _list_events(call: Call) -> Response:
    if call.sandbox.settings.webhook_events == "types":
        return call.list_response([{"type": kind, "object": "webhook_event_type"} for kind in EVENT_TYPES])
    events = reversed(call.sandbox.publisher.events.values())
    return call.list_response([event.as_json() for event in events if event.account == call.account])


def _endpoint(call: Call) -> Endpoint:
    return call.sandbox.endpoints.by_id.find(call.id, call.account)


_WEBHOOKS = "webhooks:manage"

OPERATIONS = (
    Operation("models.list", "GET", "/models", None, _list_models),
    Operation("credits.get", "GET", "/credits", "credits:read", _get_credits),
    Operation("generations.create", "POST", "/generations", "generations:create", _create_generation),
    Operation("generations.get", "GET", "/generations/{id}", "generations:read", _get_generation),
    Operation("files.create", "POST", "/files", "files:create", _upload_file),
    Operation("files.get", "GET", "/files/{id}", "files:read", _get_file),
    Operation("chat.complete", "POST", "/chat/completions", "chat:create", _create_completion),
    Operation("chat.stream", "POST", "/chat/completions/stream", "chat:create", _stream_completion),
    Operation("chat.sessions", "GET", "/chat/sessions", "chat:read", _list_sessions),
    Operation("chat.session", "GET", "/chat/sessions/{id}", "chat:read", _get_session),
    Operation("webhooks.list", "GET", "/webhooks", _WEBHOOKS, _list_endpoints),
    Operation("webhooks.create", "POST", "/webhooks", _WEBHOOKS, _create_endpoint),
    Operation("webhooks.get", "GET", "/webhooks/{id}", _WEBHOOKS, _get_endpoint),
    Operation("webhooks.update", "PATCH", "/webhooks/{id}", _WEBHOOKS, _change_endpoint),
    Operation("webhooks.delete", "DELETE", "/webhooks/{id}", _WEBHOOKS, _delete_endpoint),
    Operation("webhooks.rotate", "POST", "/webhooks/{id}/rotate-secret", _WEBHOOKS, _rotate_secret),
    Operation("webhooks.test", "POST", "/webhooks/{id}/test", _WEBHOOKS, _test_endpoint),
    Operation("webhooks.deliveries", "GET", "/webhooks/{id}/deliveries", _WEBHOOKS, _list_deliveries),
    Operation("webhook_events.list", "GET", "/webhook-events", _WEBHOOKS, _list_events),
)
