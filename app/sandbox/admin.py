"""The routes under `/sandbox`: they show the sandbox's state and change it, for this machine only, without a key."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, StrictFloat, StrictInt
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.accounts import Key
from app.sandbox.faults import Faults
from app.sandbox.models import Status
from app.sandbox.responses import invalid, json_object, json_response, validate
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox

Handler = Callable[[Sandbox, Request], Awaitable[Response]]
Configurable = TypeVar("Configurable", Faults, SandboxSettings)


def admin_routes(sandbox: Sandbox) -> list[Route]:
    """All admin routes of one sandbox."""
    return [Route(f"/sandbox{path}", partial(handle, sandbox), methods=[*verbs]) for path, verbs, handle in _ROUTES]


async def _state(sandbox: Sandbox, _: Request) -> Response:
    return json_response(sandbox.state())


async def _faults(sandbox: Sandbox, request: Request) -> Response:
    match request.method:
        case "DELETE":
            sandbox.faults.clear()
        case "PUT":
            _overwrite(sandbox.faults, await json_object(request))
        case "PATCH":
            body = await json_object(request)
            if isinstance(body.get("api"), list):
                body["api"] = [*asdict(sandbox.faults)["api"], *body["api"]]
            _change(sandbox.faults, body)
    return json_response(asdict(sandbox.faults))


async def _settings(sandbox: Sandbox, request: Request) -> Response:
    if request.method == "PATCH":
        _change(sandbox.settings, await json_object(request))
    return json_response(asdict(sandbox.settings))


class _Seconds(BaseModel):
    seconds: StrictFloat


async def _advance(sandbox: Sandbox, request: Request) -> Response:
    body = validate(_Seconds, await json_object(request))
    if not sandbox.scheduler.manual:
        raise invalid("Only a manual sandbox can be advanced.")
    await sandbox.advance(body.seconds)
    return json_response({"time": sandbox.scheduler.time()})


class _StatusReport(BaseModel):
    status: Status
    type: str | None = None


async def _move(sandbox: Sandbox, request: Request) -> Response:
    generation = sandbox.generations.by_id.find(request.path_params["id"])
    body = validate(_StatusReport, await json_object(request))
    if not generation.can_become(body.status):
        raise invalid(f"The generation is {generation.status} and can't become {body.status}.")
    await sandbox.generations.move(generation, body.status)
    return json_response(generation.as_json())


async def _emit(sandbox: Sandbox, request: Request) -> Response:
    generation = sandbox.generations.by_id.find(request.path_params["id"])
    body = validate(_StatusReport, await json_object(request))
    event = await sandbox.emit(generation.id, body.status, event_type=body.type)
    return json_response(event.as_json())


async def _endpoint(sandbox: Sandbox, request: Request) -> Response:
    endpoint = sandbox.endpoints.by_id.find(request.path_params["id"])
    if request.method == "DELETE":
        sandbox.endpoints.remove(endpoint)
        return Response(status_code=204)
    return json_response(sandbox.endpoints.change(endpoint, await json_object(request)).as_json())


async def _put_key(sandbox: Sandbox, request: Request) -> Response:
    key = validate(Key, {**await json_object(request), "value": request.path_params["value"]})
    sandbox.keys.add(key)
    return json_response(asdict(key))


class _Credits(BaseModel):
    current_credits: StrictInt


async def _put_credits(sandbox: Sandbox, request: Request) -> Response:
    body = validate(_Credits, await json_object(request))
    sandbox.accounts.set_balance(request.path_params["account"], body.current_credits)
    return json_response(body.model_dump())


def _change(target: Configurable, body: dict[str, Any]) -> None:
    """Set the named members and keep the others."""
    _overwrite(target, _merge(asdict(target), body))


def _overwrite(target: Configurable, body: dict[str, Any]) -> None:
    """Set all members; those not named get their defaults. A body that is not valid changes nothing."""
    values = validate(type(target), body)
    for member in fields(target):
        setattr(target, member.name, getattr(values, member.name))


def _merge(current: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    merged = dict(current)
    for name, value in body.items():
        inner = merged.get(name)
        merged[name] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


_ROUTES: tuple[tuple[str, tuple[str, ...], Handler], ...] = (
    ("/state", ("GET",), _state),
    ("/faults", ("GET", "PUT", "PATCH", "DELETE"), _faults),
    ("/settings", ("GET", "PATCH"), _settings),
    ("/advance", ("POST",), _advance),
    ("/generations/{id}/move", ("POST",), _move),
    ("/generations/{id}/emit", ("POST",), _emit),
    ("/endpoints/{id}", ("PATCH", "DELETE"), _endpoint),
    ("/keys/{value}", ("PUT",), _put_key),
    ("/credits/{account}", ("PUT",), _put_credits),
)
