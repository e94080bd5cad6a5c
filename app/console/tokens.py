"""Tokens: what they may spend and have spent; an admin makes, rotates and revokes them."""

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Depends, Request, Response

from app.console.filters import segment
from app.console.pages import Console, validated
from app.core.auth import Caller, Role
from app.core.errors import RequestInvalid
from app.tokens.repository import Token
from app.tokens.routes import ChangeToken, CreateToken, TokenLimitsView, usable_token_name, views

_PAGE: Final = "/console/tokens"
_DAY: Final = 24 * 3600
_MOST_HOURS: Final = 24 * 366
_WHOLE: Final = re.compile(r"\d{1,9}")
_NUMBERS: Final = ("credits_per_day", "credits_per_month", "rate")


Form = TypeVar("Form", bound=TokenLimitsView)


def read_form(fields: dict[str, str], model: type[Form]) -> Form:
    """What a form asks for; an empty field is no limit. Raises `RequestValidationError`, `RequestInvalid`."""
    given: dict[str, Any] = {name: fields[name].strip() for name in ("name", "role") if name in fields}
    given |= {name: fields.get(name, "").strip() or None for name in _NUMBERS}
    given["models"] = fields.get("models", "").replace(",", " ").split() or None
    if days := fields.get("expires_in_days", "").strip():
        if not _WHOLE.fullmatch(days):
            raise RequestInvalid("expires_in_days: must be a whole number of days.")
        given["expires_in"] = int(days) * _DAY
    return validated(model, given)


@dataclass(frozen=True, slots=True)
class TokenPages:
    """The handlers of the pages."""

    console: Console

    def router(self) -> APIRouter:
        """The routes."""
        routes, require = self.console.router(), self.console.require
        acts = [Depends(require(Role.ADMIN))]
        routes.get("/tokens", dependencies=[Depends(require(Role.READ))])(self.list_tokens)
        routes.post("/tokens", dependencies=acts)(self.create_token)
        routes.get("/tokens/{name}/secret")(self.show_secret)
        routes.post("/tokens/{name}/change", dependencies=acts)(self.change_token)
        routes.post("/tokens/{name}/rotate", dependencies=acts)(self.rotate_token)
        routes.post("/tokens/{name}/revoke", dependencies=acts)(self.revoke_token)
        return routes

    async def list_tokens(self, request: Request) -> Response:
        """All tokens for an admin, else that of the caller."""
        caller: Caller = request.state.caller
        now = self.console.clock.now()
        rows = views(
            self.console.access.given, await self.console.tokens.list(), await self.console.spending.now(), now
        )
        if not caller.role.allows(Role.ADMIN):
            rows = [row for row in rows if row.name == caller.name]
        return self.console.page(
            request,
            "tokens.html",
            title="Tokens",
            tokens=[row for row in rows if row.revoked_at is None],
            revoked=[row for row in rows if row.revoked_at is not None],
            now=now,
        )

    async def show_secret(self, request: Request, name: str) -> Response:
        """The secret of a token that was just made or rotated, also if that has ended the session."""
        return self.console.secret_page(request, title="Secret of the token", name=usable_token_name(name), back=_PAGE)

    async def create_token(self, request: Request) -> Response:
        """Make a token, and show its secret."""
        actor = self.console.audit.actor(request)
        wanted = read_form(request.state.form, CreateToken).token(now=self.console.clock.now(), created_by=actor.name)
        token, secret = await self.console.tokens.create(wanted, actor)
        return self.console.redirect_to_secret(request, _secret_url(token), secret)

    async def change_token(self, request: Request, name: str) -> Response:
        """Change its limits."""
        wanted = read_form(request.state.form, ChangeToken)
        changed = partial(wanted.changed, now=self.console.clock.now())
        await self.console.tokens.change(usable_token_name(name), changed, self.console.audit.actor(request))
        return self.console.redirect(request, _PAGE, notice=f"Changed: {name}")

    async def rotate_token(self, request: Request, name: str) -> Response:
        """Give it a new secret, and show it; the old one is accepted for some hours."""
        hours = request.state.form.get("overlap_hours", "").strip() or "0"
        if not _WHOLE.fullmatch(hours) or int(hours) > _MOST_HOURS:
            raise RequestInvalid("overlap_hours: must be a whole number of hours, at most a year.")
        overlap, actor = timedelta(hours=int(hours)), self.console.audit.actor(request)
        token, secret = await self.console.tokens.rotate(usable_token_name(name), actor, overlap=overlap)
        return self.console.redirect_to_secret(request, _secret_url(token), secret)

    async def revoke_token(self, request: Request, name: str) -> Response:
        """Revoke it for good, confirmed by its name."""
        if request.state.form.get("confirm") != name:
            raise RequestInvalid("confirm: must be the name of the token, typed as it is shown.")
        await self.console.tokens.revoke(usable_token_name(name), self.console.audit.actor(request))
        return self.console.redirect(request, _PAGE, notice=f"Revoked: {name}")


def _secret_url(token: Token) -> str:
    return f"{_PAGE}/{segment(token.name)}/secret"
