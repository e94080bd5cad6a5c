"""Signing in with a token of the receiver's, and out; failed attempts are slowed, then refused, by address."""

import asyncio
import ipaddress
from collections import deque
from contextlib import suppress
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Depends, Request, Response

from app.console.pages import COOKIE, LOGIN, Console, FormInvalid, checked_next
from app.core.auth import REFUSALS, Caller, Role, Unauthorized
from app.core.clock import Clock
from app.core.errors import ServiceError
from app.tokens.sessions import SessionEnded, new_id

WINDOW: Final = 600.0
"""Seconds for which a failed attempt counts."""
MOST_FAILURES: Final = 10
"""Of one address in a window; further ones are answered 429."""
MOST_ADDRESSES: Final = 10_000
_LONGEST_PAUSE: Final = 2.0

log = structlog.stdlib.get_logger(__name__)


class TooManyFailures(ServiceError):
    """429: this address has failed to sign in too often."""

    status = 429
    code = "too_many_sign_ins"

    def __init__(self, seconds: float) -> None:
        message = "Too many wrong tokens came from your address. The right one is accepted at any time."
        super().__init__(message, retry_after=seconds)


class FailedSignIns:
    """The failed attempts of the last minutes in this process, by address, or by network of 64 bits for IPv6."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.first_pause = 0.1
        """Seconds before the answer to a first failure; doubled with each further one, up to two seconds."""
        self._failures: dict[str, deque[float]] = {}

    def record(self, address: str | None) -> float:
        """Count a failure; returns the seconds to wait before its answer. Raises `TooManyFailures`."""
        key, now = _network(address), self._clock.monotonic()
        failures = self._failures.pop(key, None) or deque(maxlen=MOST_FAILURES)
        while failures and failures[0] <= now - WINDOW:
            failures.popleft()
        self._failures[key] = failures  # now the newest of all
        if len(failures) == MOST_FAILURES:
            raise TooManyFailures(failures[0] + WINDOW - now)
        failures.append(now)
        if len(self._failures) > MOST_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        return min(self.first_pause * (1 << (len(failures) - 1)), _LONGEST_PAUSE)


def _network(address: str | None) -> str:
    with suppress(ValueError):
        ip = ipaddress.ip_address(address or "")
        return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))
    return "unknown"


def router(console: Console, failed: FailedSignIns) -> APIRouter:
    """The routes to sign in and out."""
    routes = console.router()

    @routes.get("/login")
    async def show_form(request: Request) -> Response:
        """The form, or the wanted page for who is signed in."""
        try:
            await console.sessions.caller(request.cookies.get(COOKIE, ""))
        except SessionEnded:
            return _form(console, request)
        return console.redirect(request, checked_next(request.query_params.get("next", "")))

    @routes.post("/login")
    async def sign_in(request: Request) -> Response:
        """Begin a session under a new id, and go on to the wanted page."""
        if COOKIE not in request.cookies:
            why = "Your browser sent no cookie. The console needs https, or http on this machine (127.0.0.1)."
            return _form(console, request, status=400, error=why)
        try:
            fields = await console.read_form(request)
        except FormInvalid as error:
            return _form(console, request, status=error.status, error="This page was too old. Please try again.")
        try:
            caller = console.access.caller(fields.get("token", "").strip())
        except Unauthorized as error:
            return await _refused(console, failed, request, error)
        request.state.caller = caller
        session_id = await console.sessions.create(caller, console.audit.actor(request))
        response = console.redirect(request, checked_next(request.query_params.get("next", "")))
        console.set_cookie(request, response, COOKIE, session_id)
        return response

    @routes.post("/logout")
    async def sign_out(request: Request, _: Annotated[Caller, Depends(console.require(Role.READ))]) -> Response:
        """End the session."""
        await console.sessions.delete(request.cookies[COOKIE], console.audit.actor(request))
        response = console.redirect(request, LOGIN, notice="You are signed out.")
        response.delete_cookie(COOKIE, path="/console")
        return response

    return routes


def _form(console: Console, request: Request, *, status: int = 200, error: str | None = None) -> Response:
    """The page with the form, with a cookie for its CSRF token."""
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        request.cookies[COOKIE] = cookie = new_id()
    wanted = checked_next(request.query_params.get("next", ""))
    response = console.page(request, "login.html", status=status, title="Sign in", error=error, wanted=wanted)
    console.set_cookie(request, response, COOKIE, cookie)
    return response


async def _refused(console: Console, failed: FailedSignIns, request: Request, error: Unauthorized) -> Response:
    REFUSALS.labels(error.code).inc()
    address = console.audit.address(request)
    log.warning("sign_in.refused", code=error.code, remote_address=address)
    try:
        pause = failed.record(address)
    except TooManyFailures as too_many:
        response = _form(console, request, status=too_many.status, error=too_many.message)
        response.headers["Retry-After"] = str(round(too_many.retry_after or 1) + 1)
        return response
    await asyncio.sleep(pause)
    message = "Paste a token of the receiver's." if error.code == "api_key_missing" else error.message
    return _form(console, request, status=error.status, error=message)
