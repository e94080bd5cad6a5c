"""Renders every error as a response in Rivya's format."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.api.schemas import answer
from app.core.bodies import ClientDisconnected
from app.core.errors import DatabaseUnavailable, ServiceError
from app.core.middleware import LastResort, RequestContextMiddleware, SecurityHeadersMiddleware, route_of

log = structlog.stdlib.get_logger(__name__)

_CODES = {400: "validation_failed", 401: "api_key_invalid", 403: "api_scope_denied", 413: "payload_too_large"}
_MESSAGES = {404: "There is nothing at this path.", 405: "This path does not take this method."}


def install(app: FastAPI) -> None:
    """Make `app` answer every error in Rivya's format, and give every request an id."""
    app.exception_handler(ServiceError)(_service_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(HTTPException)(_http_error)
    app.add_middleware(LastResort)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(RequestContextMiddleware)  # outermost, so that a response of LastResort has an id too


class _NoAnswer(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do nothing."""


async def _service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    if isinstance(error, ClientDisconnected):
        return _NoAnswer()
    if error.status >= 500:
        reason = error.reason if isinstance(error, DatabaseUnavailable) else None
        log.warning("request.not_served", code=error.code, route=route_of(request.scope), reason=reason)
    headers = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _error(request, error.status, error.code, error.message, headers=headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return _error(request, 400, "validation_failed", explain(error.errors()))


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    code = _CODES.get(error.status_code, phrase.lower().replace(" ", "_").replace("-", "_"))
    message = _MESSAGES.get(error.status_code, f"{phrase}.")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = _allowed(request) or headers.get("Allow", "")
    return _error(request, error.status_code, code, message, headers=headers)


def _allowed(request: Request) -> str:
    # A route knows only its own methods; the OpenAPI document has all methods of the path.
    methods = request.app.openapi()["paths"].get(route_of(request.scope), {})
    return ", ".join(sorted({method.upper() for method in methods} | ({"HEAD"} if "get" in methods else set())))


def _error(
    request: Request, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    detail = {"code": code, "message": message, "requestId": request.state.request_id}
    return answer({"error": detail}, status=status, headers=headers)


_AT_MOST = 5
_LONGEST_NAME = 60
_PLACES = ("query", "path", "header", "cookie", "body")


def explain(errors: Sequence[Any]) -> str:
    """One sentence for each of the first five errors: the parameter or member and what is valid, never its value."""
    return " ".join(_sentence(error) for error in errors[:_AT_MOST])


def _sentence(error: Mapping[str, Any]) -> str:
    name = _name(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such parameter or member."
    if error["type"] == "missing":
        return f"{name}: is required."
    message = _message(error)
    return f"{name}: {message[:1].lower()}{message[1:]}."


def _message(error: Mapping[str, Any]) -> str:
    cause = error.get("ctx", {}).get("error")  # one of our own validators, whose text is meant to be shown
    return str(cause) if isinstance(cause, ValueError) else str(error["msg"])


def _name(location: Sequence[str | int]) -> str:
    inner = [str(part) for part in location if part not in _PLACES] or [str(part) for part in location[:1]]
    name = "".join(character if character.isprintable() else "?" for character in ".".join(inner))
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
