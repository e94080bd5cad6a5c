"""The routes under `/sandbox`: no key, for this machine only; they tell the truth and make the sandbox misbehave."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from functools import partial
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.accounts import Key
from app.sandbox.faults import Faults
from app.sandbox.models import STATUSES, Status
from app.sandbox.responses import invalid, json_answer, json_object, missing
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox
from app.sandbox.webhooks import Endpoint

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
    if not isinstance(seconds, int | float) or not sandbox.scheduler.manual:
        raise invalid("Only a manual sandbox can be advanced, by a number of seconds.")
    await sandbox.advance(seconds)
    return json_answer({"time": sandbox.scheduler.time()})


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
    sandbox.accounts.set_balance(request.path_params["account"], left)
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


# Changes settings and faults from JSON, refusing unknown names and wrong types.


T = TypeVar("T")
Configurable = TypeVar("Configurable", Faults, SandboxSettings)


def change(target: Configurable, body: dict[str, Any]) -> None:
    """Set the named members and keep the others; raises `validation_failed` and then changes nothing."""
    overwrite(target, _merged(asdict(target), body))


def overwrite(target: Configurable, body: dict[str, Any]) -> None:
    """Set all members, those not named to their defaults; raises `validation_failed` and then changes nothing."""
    wanted = _validated(type(target), body)
    for member in fields(target):
        setattr(target, member.name, getattr(wanted, member.name))


def read_key(value: str, body: dict[str, Any]) -> Key:
    """A key with the members that the body names; raises `validation_failed`."""
    key = _validated(Key, {**body, "value": value})
    if key.expires_at is not None and key.expires_at.tzinfo is None:
        raise invalid("expires_at must name its time zone.")
    return key


def _validated(kind: type[T], body: dict[str, Any]) -> T:
    try:
        return TypeAdapter(kind).validate_python(body)
    except ValidationError as error:
        raise invalid(_first_fault(error)) from None


def _merged(current: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    merged = dict(current)
    for name, value in body.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}"
