"""The commands `tokens …`: they work on the database, so that the first admin's token needs no other."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import typer
from pydantic import BaseModel, ValidationError

from app.cli.client import output
from app.core.audit import COMMAND_LINE
from app.core.auth import Access
from app.core.bodies import Model
from app.core.clock import SystemClock
from app.core.database import Database
from app.core.settings import Settings
from app.tokens.repository import Token, TokenRepository, describe
from app.tokens.routes import (
    ChangeToken,
    CreateToken,
    NewTokenView,
    TokensView,
    TokenView,
    view,
    view_with_credits,
    views,
)
from app.tokens.service import Tokens
from app.tokens.spending import spent_at

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST: Final = timedelta(days=3660)


def read_duration(text: str) -> timedelta:
    """A duration such as 90d, 12h, 30m or 45s. Raises `typer.BadParameter`."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    duration = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta.max
    if duration > _LONGEST:
        raise typer.BadParameter(f"got {text!r}; give a duration of ten years at most, such as 90d, 12h, 30m or 45s")
    return duration


def read_rate(text: str) -> int:
    """A number of calls a minute, such as 60/min or 60. Raises `typer.BadParameter`."""
    match = re.fullmatch(r"([1-9][0-9]{0,6})(/min)?", text.strip())
    if match is None:
        raise typer.BadParameter(f"got {text!r}; give a number of calls a minute, such as 60/min")
    return int(match[1])


def read_limits(
    expires: str | None,
    credits_per_day: str | None,
    credits_per_month: str | None,
    models: str | None,
    rate: str | None,
) -> dict[str, Any]:
    """The members of `CreateToken` or `ChangeToken` that are given; `none` is null. Raises `typer.BadParameter`."""
    given: dict[str, tuple[str | None, Callable[[str], object]]] = {
        "expires_in": (expires, lambda text: int(read_duration(text).total_seconds())),
        "credits_per_day": (credits_per_day, str),
        "credits_per_month": (credits_per_month, str),
        "models": (models, lambda text: [model.strip() for model in text.split(",")]),
        "rate": (rate, read_rate),
    }
    return {
        name: None if text.strip().lower() == "none" else read(text)
        for name, (text, read) in given.items()
        if text is not None
    }


def validated(model: type[Model], members: dict[str, Any]) -> Model:
    """These members as `model`. Raises `typer.BadParameter`, which names what is wrong."""
    try:
        return model.model_validate(members)
    except ValidationError as error:
        reasons = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise typer.BadParameter("; ".join(reasons)) from None


async def create(settings: Settings, database: Database, *, wanted: CreateToken, as_json: bool) -> bool:
    """Store a token and print its secret, which is shown this once."""
    new = wanted.token(now=SystemClock().now(), created_by=COMMAND_LINE.name)
    token, secret = await _tokens(settings, database).create(new, COMMAND_LINE)
    text = f"created {token.name}: {describe(token)}; its secret is shown this once:"
    _show_secret(token, secret, text, as_json=as_json)
    return True


async def rotate(settings: Settings, database: Database, *, name: str, overlap: timedelta, as_json: bool) -> bool:
    """Give a token a new secret and print it."""
    token, secret = await _tokens(settings, database).rotate(name, COMMAND_LINE, overlap=overlap)
    text = f"rotated {token.name}: the old secret is accepted for {overlap}; the new one:"
    _show_secret(token, secret, text, as_json=as_json)
    return True


def _show_secret(token: Token, secret: str, text: str, *, as_json: bool) -> None:
    if not as_json:
        typer.echo(text, err=True)
    output.show(_json(NewTokenView(**view(token), token=secret)), secret, as_json=as_json)


async def change(settings: Settings, database: Database, *, name: str, wanted: ChangeToken, as_json: bool) -> bool:
    """Change limits or expiry of a token."""
    now = SystemClock().now()
    token = await _tokens(settings, database).change(name, lambda token: wanted.changed(token, now=now), COMMAND_LINE)
    output.show(_json(TokenView(**view(token))), f"changed {token.name}: {describe(token)}", as_json=as_json)
    return True


async def revoke(settings: Settings, database: Database, *, name: str, as_json: bool) -> bool:
    """Revoke a token."""
    token = await _tokens(settings, database).revoke(name, COMMAND_LINE)
    text = f"revoked {token.name}; every replica refuses it within a second"
    output.show(_json(TokenView(**view(token))), text, as_json=as_json)
    return True


async def show(settings: Settings, database: Database, *, as_json: bool) -> bool:
    """Print a line for each token: role, limits, what is left of them, last use."""
    now = SystemClock().now()
    managed = await TokenRepository(database).all()
    spent = await spent_at(database, now)
    if as_json:
        output.print_json(_json(TokensView(data=views(settings.receiver_api_tokens, managed, spent, now))))
        return True
    for token in settings.receiver_api_tokens:
        typer.echo(f"{token.name}: role {token.role}; from RECEIVER_API_TOKENS")
    for stored in managed:
        state = f"revoked {output.time(stored.revoked_at)}; " if stored.revoked_at is not None else ""
        periods = view_with_credits(stored, spent, now).credits
        named = (("today", periods.day), ("this month", periods.month))
        left = "".join(f"{period.left:g} left {when}; " for when, period in named if period is not None)
        typer.echo(f"{stored.name}: {state}{describe(stored)}; {left}last used {output.time(stored.last_used_at)}")
    return True


def _json(document: BaseModel) -> dict[str, Any]:
    return document.model_dump(mode="json")


def _tokens(settings: Settings, database: Database) -> Tokens:
    clock = SystemClock()
    return Tokens(TokenRepository(database), Access(settings.receiver_api_tokens, clock), clock=clock)
