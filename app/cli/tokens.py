"""The commands `tokens …`: they work on the database, so that the first admin's token needs no other."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import typer

from app.cli.operations import Work
from app.core.audit import COMMAND_LINE
from app.core.auth import Access
from app.core.clock import SystemClock
from app.core.database import Database
from app.core.settings import Settings
from app.tokens.repository import Token, TokenRepository, describe
from app.tokens.service import Tokens

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


def create(wanted: Callable[[datetime], Token]) -> Work:
    """Work that stores a token and prints its secret, which is shown this once."""

    async def work(settings: Settings, database: Database) -> bool:
        token, secret = await _tokens(settings, database).create(wanted(SystemClock().now()), COMMAND_LINE)
        typer.echo(f"created {token.name}: {describe(token)}; its secret is shown this once:", err=True)
        typer.echo(secret)
        return True

    return work


def rotate(name: str, overlap: timedelta) -> Work:
    """Work that gives a token a new secret and prints it."""

    async def work(settings: Settings, database: Database) -> bool:
        token, secret = await _tokens(settings, database).rotate(name, COMMAND_LINE, overlap=overlap)
        typer.echo(f"rotated {token.name}: the old secret is accepted for {overlap}; the new one:", err=True)
        typer.echo(secret)
        return True

    return work


def revoke(name: str) -> Work:
    """Work that revokes a token."""

    async def work(settings: Settings, database: Database) -> bool:
        token = await _tokens(settings, database).revoke(name, COMMAND_LINE)
        typer.echo(f"revoked {token.name}; every replica refuses it within a second")
        return True

    return work


async def show(settings: Settings, database: Database) -> bool:
    """Print a line for each token."""
    for token in settings.receiver_api_tokens:
        typer.echo(f"{token.name}: role {token.role}; from RECEIVER_API_TOKENS")
    for stored in await TokenRepository(database).all():
        state = f"revoked {_time(stored.revoked_at)}; " if stored.revoked_at is not None else ""
        typer.echo(f"{stored.name}: {state}{describe(stored)}; last used {_time(stored.last_used_at)}")
    return True


def _tokens(settings: Settings, database: Database) -> Tokens:
    clock = SystemClock()
    return Tokens(TokenRepository(database), Access(settings.receiver_api_tokens, clock), clock=clock)


def _time(time: datetime | None) -> str:
    return "never" if time is None else f"{time:%Y-%m-%d %H:%M:%SZ}"
