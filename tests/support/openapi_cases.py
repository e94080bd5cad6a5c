"""Requests drawn from the OpenAPI document, those it allows and those it forbids, and the checks of their answers."""

import json
import re
from contextlib import suppress
from functools import lru_cache
from typing import Any

import httpx
import jsonschema_rs
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode

from app.core.auth import Role
from tests.support.asgi_service import TOKENS

KNOWN = {"generation_id": "known", "event_id": "evt_known_succeeded", "model_id": "z-image"}
"""What is there, of that which a path names: else nearly every answer would be 404."""

UNDOCUMENTED = re.compile(
    "The URL |This receiver makes no callbacks|cursor: |after: |from|to: must (be a day or a whole hour|leave room)|"
    ".*(must not contain NUL|printable characters)"
)
"""What we refuse although the document allows it: no schema can say where a URL leads, that a cursor is one of ours,
that a time precedes another, leaves room before it or is a whole hour, or which characters are printable."""

_VIOLATED = re.compile("violates `([a-zA-Z]+)`")

RIVYA_DECIDES = {
    ("POST", "/api/v1/generations"),
    ("POST", "/api/v1/files"),
    ("POST", "/api/v1/chat/completions"),
    ("POST", "/api/v1/chat/completions/stream"),
}

_RESENT = ("ignored_auth", "unsupported_method", "use_after_free", "ensure_resource_availability")
"""Checks that call a server of their own; `test_roles` and `test_openapi_conformance` make those calls."""


@lru_cache(maxsize=1)
def drawn(document: str, *, examples: int) -> tuple[Any, ...]:
    """So many cases of each operation of a document, in JSON, that it allows, and as many that it forbids."""
    load_all_checks()
    cases: list[Any] = []
    operations: Any = schemathesis.openapi.from_dict(json.loads(document)).get_all_operations()
    for result in operations:
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(
                max_examples=examples,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                database=None,
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def collect(case: Any) -> None:
                cases.append(case)

            with suppress(Unsatisfiable):  # it takes nothing that could be wrong
                collect()
    return tuple(cases)


async def problems_of(client: httpx.AsyncClient, case: Any, number: int) -> list[str] | None:
    """What is wrong with the answer to this case; None where no HTTP client can send it."""
    request = _request(client, case, number)
    if request is None:
        return None
    answer = await client.send(request)
    problems: list[str] = []
    try:
        case.validate_response(answer, excluded_checks=CHECKS.get_by_names([*_RESENT, "not_a_server_error"]))
    except FailureGroup as group:
        problems = [f"{type(each).__name__}: {each}" for each in group.exceptions if not _is_known(each, case, answer)]
    if answer.status_code >= 500 and not _is_provoked(case, answer):
        problems.append("a server error")
    if answer.status_code >= 400 and case.path.startswith("/api/"):
        problems += [] if set(answer.json()["error"]) == {"code", "message", "requestId"} else ["no error of ours"]
    if answer.headers.get("content-type") == "application/json" and not answer.content.endswith(b"}\n"):
        problems.append("JSON without a newline at its end")
    where = f"{request.method} {request.url} {request.content[:300]!r} -> {answer.status_code} {answer.text[:300]}"
    return [f"{each}\n  {where}" for each in problems]


def _request(client: httpx.AsyncClient, case: Any, number: int) -> httpx.Request | None:
    is_positive = case.meta.generation.mode is GenerationMode.POSITIVE
    path = case.path_parameters or {}
    if is_positive and number % 2:
        path.update({name: known for name, known in KNOWN.items() if name in path})
    asked = case.as_transport_kwargs(base_url="http://receiver")
    headers = {name: str(value) for name, value in asked.pop("headers", {}).items()}
    part = case.meta.components.get(ParameterLocation.HEADER)
    if part is None or part.mode is GenerationMode.POSITIVE:
        headers["Authorization"] = f"Bearer {TOKENS[Role.ADMIN]}"
    keep = {name: value for name, value in asked.items() if name in ("params", "json", "data", "content", "files")}
    if isinstance(keep.get("data"), bytes | str):
        keep["content"] = keep.pop("data")
    try:
        request = client.build_request(asked["method"], asked["url"], headers=headers, **keep)
        request.read()
    except (UnicodeError, httpx.InvalidURL, AttributeError, TypeError, ValueError):
        return None
    return request


def _is_known(failure: Exception, case: Any, answer: httpx.Response) -> bool:
    """A shortcoming of what a document can say, not of ours."""
    name = type(failure).__name__
    if name == "RejectedPositiveData":
        message = answer.json()["error"]["message"]
        return (case.method, case.path) in RIVYA_DECIDES or UNDOCUMENTED.match(message) is not None
    if name == "AcceptedNegativeData" and case.media_type == "multipart/form-data":
        return set(_VIOLATED.findall(str(failure))) == {"type"}  # whatever a form's field is given, it carries as text
    # OpenAPI 3.1 describes a stream of events as one text; the check takes each event for an object.
    return name == "JsonSchemaError" and answer.headers["content-type"].startswith("text/event-stream")


def _is_provoked(case: Any, answer: httpx.Response) -> bool:
    """503 is documented, and provoked: no signing secret is known, since nothing is registered; polls come at once."""
    if answer.status_code != 503:
        return False
    return (case.path == "/readyz" and "signing_secret" in answer.text) or (
        case.path.endswith("/poll") and answer.json()["error"]["code"] == "not_now"
    )


ERROR = "#/components/schemas/ErrorOut"


def check(document: dict[str, Any], reference: str, value: object) -> None:
    """Raise if `value` does not fit the schema at `reference`."""
    jsonschema_rs.validate({"$ref": reference, "components": document["components"]}, value)
