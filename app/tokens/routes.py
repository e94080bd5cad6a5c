"""The routes under /api/v1/tokens: for an admin; /me for every token."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.core.audit import Audit
from app.core.auth import Access, ApiToken, Caller, Role, TokenLimits
from app.core.bodies import describe_body, read_model
from app.core.clock import Clock
from app.core.errors import NotFound
from app.tokens.repository import Token
from app.tokens.service import RESERVED_NAMES, Tokens
from app.tokens.spending import Spending, Spent, renewal

_Credits = Annotated[float, Field(ge=0, le=1e12)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", min_length=1, max_length=100)]
_LONGEST: Final = 10 * 366 * 24 * 3600

_TOKEN: dict[str, Any] = {
    "object": "token",
    "name": "shop",
    "role": "write-own",
    "managed": True,
    "credits_per_day": 500,
    "credits_per_month": None,
    "models": ["z-image"],
    "rate": 60,
    "created_at": "2026-05-10T00:00:00Z",
    "created_by": "ops",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": "2026-05-10T00:05:00Z",
}
_CREDITS: dict[str, Any] = {
    "limit": 500,
    "reserved": 4,
    "spent": 120.5,
    "left": 375.5,
    "renews_at": "2026-05-11T00:00:00Z",
}


class TokenLimitsView(BaseModel):
    """What a token may spend and call; null is no limit. Days, months and minutes are those of UTC."""

    credits_per_day: _Credits | None = None
    credits_per_month: _Credits | None = None
    models: (
        Annotated[list[Annotated[str, Field(pattern=r"^[!-~]+$", min_length=1, max_length=500)]], Field(max_length=100)]
        | None
    ) = Field(None, description="the only ones that it may use")
    rate: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="creates and chat turns a minute")

    @property
    def limits(self) -> TokenLimits:
        """The limits themselves."""
        models = None if self.models is None else tuple(self.models)
        return TokenLimits(
            credits_per_day=self.credits_per_day,
            credits_per_month=self.credits_per_month,
            models=models,
            rate=self.rate,
        )


class CreateToken(TokenLimitsView):
    """A token to be made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"name": "shop", "role": "write-own", "credits_per_day": 500, "rate": 60}},
    )

    name: _Name
    role: Annotated[Role, WithJsonSchema({"type": "string", "enum": list(Role)})]
    expires_in: Annotated[int, Field(ge=1, le=_LONGEST)] | None = Field(
        None, description="seconds; null: it does not expire"
    )

    def token(self, *, now: datetime, created_by: str) -> Token:
        """The token."""
        return Token(
            name=self.name,
            role=self.role,
            limits=self.limits,
            created_at=now,
            created_by=created_by,
            expires_at=_expiry(self.expires_in, now),
        )


def _expiry(seconds: int | None, now: datetime) -> datetime | None:
    return None if seconds is None else now + timedelta(seconds=seconds)


class ChangeToken(TokenLimitsView):
    """What is changed of a token: the members that are given; null removes a limit."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"credits_per_day": 800}})

    expires_in: Annotated[int, Field(ge=1, le=_LONGEST)] | None = Field(
        None, description="seconds from now; null: it does not expire"
    )

    def changed(self, token: Token, *, now: datetime) -> Token:
        """The token with these changes."""
        given = self.model_fields_set
        limits = replace(token.limits, **{name: getattr(self.limits, name) for name in given - {"expires_in"}})
        if "expires_in" not in given:
            return replace(token, limits=limits)
        return replace(token, limits=limits, expires_at=_expiry(self.expires_in, now))


class RotateToken(BaseModel):
    """How a token is rotated."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"overlap": 3600}})

    overlap: Annotated[int, Field(ge=0, le=_LONGEST)] = Field(
        0, description="seconds for which the old secret is accepted beside the new one"
    )


class TokenView(TokenLimitsView):
    """A token, without its secret."""

    model_config = ConfigDict(json_schema_extra={"example": _TOKEN})

    object: Literal["token"] = "token"
    name: str
    role: Role
    managed: bool = Field(description="false: it is an entry of RECEIVER_API_TOKENS")
    created_at: datetime | None = None
    created_by: str | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = Field(None, description="noted once a minute")


class CreditsView(BaseModel):
    """The credits of one day or month; both begin at midnight UTC."""

    limit: float
    reserved: float = Field(description="for what is under way")
    spent: float
    left: float
    renews_at: datetime


class CreditsByPeriodView(BaseModel):
    """null: there is no limit, and nothing is counted"""

    day: CreditsView | None = None
    month: CreditsView | None = None


class TokenAndCreditsView(TokenView):
    """A token, and what is left of its limits."""

    model_config = ConfigDict(json_schema_extra={"example": {**_TOKEN, "credits": {"day": _CREDITS, "month": None}}})

    credits: CreditsByPeriodView = CreditsByPeriodView()


class NewTokenView(TokenView):
    """A token with its new secret, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"example": {**_TOKEN, "token": "rcv_…"}})

    token: str = Field(description="send it as `Authorization: Bearer`; it is not stored and never shown again")


class TokensView(BaseModel):
    """All tokens, by name."""

    object: Literal["list"] = "list"
    data: list[TokenAndCreditsView]


def view(token: Token) -> dict[str, Any]:
    """The members of a token's view."""
    return {**asdict(token.limits), **{name: getattr(token, name) for name in _SHOWN}, "managed": True}


_SHOWN: Final = ("name", "role", "created_at", "created_by", "expires_at", "revoked_at", "last_used_at")


def view_with_credits(token: Token, spent: Mapping[tuple[str, str], Spent], now: datetime) -> TokenAndCreditsView:
    """A token, and what is left of its limits of this day and month."""
    credits_left = {
        name: CreditsView(
            limit=limit,
            reserved=(used := spent.get((token.name, period), Spent(0, 0))).reserved,
            spent=used.spent,
            left=max(limit - used.reserved - used.spent, 0),
            renews_at=renewal(period, now),
        )
        for name, period, limit in (
            ("day", f"{now:%Y-%m-%d}", token.limits.credits_per_day),
            ("month", f"{now:%Y-%m}", token.limits.credits_per_month),
        )
        if limit is not None
    }
    return TokenAndCreditsView(**view(token), credits=CreditsByPeriodView(**credits_left))


def views(
    given: Iterable[ApiToken], managed: Iterable[Token], spent: Mapping[tuple[str, str], Spent], now: datetime
) -> list[TokenAndCreditsView]:
    """All tokens by name: those of the settings, and the managed ones."""
    shown = [TokenAndCreditsView(name=token.name, role=token.role, managed=False) for token in given]
    return sorted([*shown, *(view_with_credits(token, spent, now) for token in managed)], key=lambda each: each.name)


def router(tokens: Tokens, spending: Spending, access: Access, audit: Audit, *, clock: Clock) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1", tags=["tokens"])
    admins = [Depends(access.require(Role.ADMIN))]

    @routes.get("/tokens", summary="List the tokens", dependencies=admins)
    async def list_tokens() -> TokensView:
        """Those of RECEIVER_API_TOKENS, and the managed ones with what is left of their limits; revoked ones included.

        No secrets are stored.
        """
        return TokensView(data=views(access.given, await tokens.list(), await spending.now(), clock.now()))

    @routes.post(
        "/tokens",
        summary="Create a token",
        status_code=201,
        dependencies=admins,
        openapi_extra=describe_body(CreateToken),
    )
    async def create_token(request: Request) -> NewTokenView:
        """Every replica knows it within a second. Its secret is in this answer only."""
        wanted = await read_model(request, CreateToken)
        actor = audit.actor(request)
        token, secret = await tokens.create(wanted.token(now=clock.now(), created_by=actor.name), actor)
        return NewTokenView(**view(token), token=secret)

    @routes.get("/tokens/me", summary="About the token of this call")
    async def get_own_token(caller: Annotated[Caller, Depends(access.require(Role.READ))]) -> TokenAndCreditsView:
        """Its name, role and limits, and what is left of them."""
        known = {token.name: token for token in await tokens.list()}
        if caller.name not in known or caller.name in {token.name for token in access.given}:
            return TokenAndCreditsView(name=caller.name, role=caller.role, managed=False)
        return view_with_credits(known[caller.name], await spending.now(), clock.now())

    @routes.patch(
        "/tokens/{name}",
        summary="Change limits or expiry of a token",
        dependencies=admins,
        openapi_extra=describe_body(ChangeToken),
    )
    async def change_token(name: str, request: Request) -> TokenView:
        """Members that are left out stay. Every replica goes by the new limits within a second.

        What was spent before a token had a limit of credits is not counted.
        """
        wanted = await read_model(request, ChangeToken)
        changed = partial(wanted.changed, now=clock.now())
        return TokenView(**view(await tokens.change(usable_token_name(name), changed, audit.actor(request))))

    @routes.delete("/tokens/{name}", summary="Revoke a token", dependencies=admins)
    async def revoke_token(name: str, request: Request) -> TokenView:
        """For good. Every replica refuses it within a second, in streams and long polls under way too."""
        return TokenView(**view(await tokens.revoke(usable_token_name(name), audit.actor(request))))

    @routes.post(
        "/tokens/{name}/rotate",
        summary="Replace the secret of a token",
        dependencies=admins,
        openapi_extra=describe_body(RotateToken, is_required=False),
    )
    async def rotate_token(name: str, request: Request) -> NewTokenView:
        """The old secret is accepted for `overlap` seconds; name, role, limits and what was spent stay."""
        how = await read_model(request, RotateToken)
        overlap = timedelta(seconds=how.overlap)
        token, secret = await tokens.rotate(usable_token_name(name), audit.actor(request), overlap=overlap)
        return NewTokenView(**view(token), token=secret)

    return routes


def usable_token_name(name: str) -> str:
    """`name`, if a managed token can have it. Raises `NotFound`."""
    if not name.isprintable() or name in RESERVED_NAMES:
        raise NotFound("There is no managed token with this name.")
    return name
