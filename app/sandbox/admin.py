"""The routes under `/sandbox`: no key, for this machine only; they tell the truth and make the sandbox misbehave."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.answers import json_answer
from app.sandbox.bodies import json_object
from app.sandbox.configure import change, overwrite, read_key
from app.sandbox.endpoint import Endpoint
from app.sandbox.errors import invalid, missing
from app.sandbox.generation import STATUSES, Status
from app.sandbox.state import Sandbox

Handler = Callable[[Sandbox, Request], Awaitable[Response]]


def admin_routes(sandbox: Sandbox) -> list[Route]:
    """All of them, bound to a sandbox."""
    return [Route(f"/sandbox{path}", partial(handle, sandbox), methods=[verb]) for verb, path, handle in _ROUTES]


async def _state(sandbox: Sandbox, _: Request) -> Response:
    return json_answer(sandbox.state())


async def _faults(sandbox: Sandbox, request: Request) -> Response:
    if request.method == "DELETE":
        sandbox.faults.clear()
    elif request.method == "PUT":
        overwrite(sandbox.faults, await json_object(request))
    elif request.method == "PATCH":
        body = await json_object(request)
        if isinstance(body.get("api"), list):
            body["api"] = [*asdict(sandbox.faults)["api"], *body["api"]]
        change(sandbox.faults, body)
    return json_answer(asdict(sandbox.faults))


async def _settings(sandbox: Sandbox, request: Request) -> Response:
    if request.method == "PATCH":
        change(sandbox.settings, await json_object(request))
    return json_answer(asdict(sandbox.settings))


async def _advance(sandbox: Sandbox, request: Request) -> Response:
    seconds = (await json_object(request)).get("seconds")
    if not isinstance(seconds, int | float) or not sandbox.work.manual:
        raise invalid("Only a manual sandbox can be advanced, by a number of seconds.")
    await sandbox.advance(seconds)
    return json_answer({"time": sandbox.work.time()})


async def _move(sandbox: Sandbox, request: Request) -> Response:
    generation_id, body = _generation_id(sandbox, request), await json_object(request)
    try:
        generation = await sandbox.move(generation_id, _status(body))
    except ValueError as error:
        raise invalid(str(error)) from None
    return json_answer(generation.as_json())


async def _emit(sandbox: Sandbox, request: Request) -> Response:
    generation_id, body = _generation_id(sandbox, request), await json_object(request)
    event = await sandbox.emit(generation_id, _status(body), event_type=body.get("type"))
    return json_answer(event.as_json())


async def _change_endpoint(sandbox: Sandbox, request: Request) -> Response:
    endpoint = _endpoint(sandbox, request)
    return json_answer(sandbox.endpoints.change(endpoint, await json_object(request)).as_json())


async def _remove_endpoint(sandbox: Sandbox, request: Request) -> Response:
    sandbox.endpoints.remove(_endpoint(sandbox, request))
    return Response(status_code=204)


async def _put_key(sandbox: Sandbox, request: Request) -> Response:
    key = sandbox.keys.add(read_key(request.path_params["value"], await json_object(request)))
    return json_answer(asdict(key))


async def _put_credits(sandbox: Sandbox, request: Request) -> Response:
    left = (await json_object(request)).get("current_credits")
    if not isinstance(left, int):
        raise invalid("current_credits must be a whole number.")
    sandbox.purse.grant(request.path_params["account"], left)
    return json_answer({"current_credits": left})


def _generation_id(sandbox: Sandbox, request: Request) -> str:
    generation_id: str = request.path_params["generation_id"]
    if generation_id not in sandbox.generations.by_id:
        raise missing("Generation")
    return generation_id


def _endpoint(sandbox: Sandbox, request: Request) -> Endpoint:
    endpoint = sandbox.endpoints.by_id.get(request.path_params["endpoint_id"])
    if endpoint is None:
        raise missing("Webhook endpoint")
    return endpoint


def _status(body: dict[str, Any]) -> Status:
    status = body.get("status")
    if status not in STATUSES:
        raise invalid(f"status must be one of {', '.join(STATUSES)}.")
    return cast("Status", status)


_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/state", _state),
    *((verb, "/faults", _faults) for verb in ("GET", "PUT", "PATCH", "DELETE")),
    *((verb, "/settings", _settings) for verb in ("GET", "PATCH")),
    ("POST", "/advance", _advance),
    ("POST", "/generations/{generation_id}/move", _move),
    ("POST", "/generations/{generation_id}/emit", _emit),
    ("PATCH", "/endpoints/{endpoint_id}", _change_endpoint),
    ("DELETE", "/endpoints/{endpoint_id}", _remove_endpoint),
    ("PUT", "/keys/{value}", _put_key),
    ("PUT", "/credits/{account}", _put_credits),
)
