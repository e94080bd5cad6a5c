"""What is written down about our endpoints; each method is one transaction."""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, Update, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.core.ids import uuid7
from app.endpoint.acts import Endpoint
from app.endpoint.state import State
from app.endpoint.tables import endpoint_secrets, endpoints

_COLUMNS = tuple(endpoints.c[field.name] for field in fields(Endpoint))


class Overtaken(Exception):
    """The row is no longer in the state this step began with: another replica has gone on meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """A secret as stored: sealed."""

    endpoint_id: str
    sealed: str = field(repr=False)
    valid_from: datetime
    valid_until: datetime | None


class Registry:
    """Our endpoints and their secrets in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def endpoints(self) -> list[Endpoint]:
        """All there ever were, the newest first."""
        async with self._database.read() as connection:
            found = await connection.execute(select(*_COLUMNS).order_by(endpoints.c.id.desc()))
            return [_endpoint(row) for row in found.mappings()]

    async def secrets(self, *, now: datetime) -> list[StoredSecret]:
        """Those that are valid now, the newest first."""
        secret = endpoint_secrets.c
        # The secret of an endpoint that is gone is valid only as long as was said when it went.
        valid = or_(and_(secret.valid_until.is_(None), endpoints.c.state != State.RETIRED), secret.valid_until > now)
        wanted = (
            select(secret.endpoint_id, secret.sealed, secret.valid_from, secret.valid_until)
            .join(endpoints, endpoints.c.id == secret.endpoint_id)
            .where(valid)
            .order_by(secret.id.desc())
        )
        async with self._database.read() as connection:
            return [StoredSecret(**row) for row in (await connection.execute(wanted)).mappings()]

    async def add_intent(self, *, path_key: str, url: str, now: datetime) -> None:
        """Write down an endpoint that is to be. Raises `Overtaken` where there is one already."""
        row = {"id": str(uuid7(now)), "path_key": path_key, "url": url, "state": State.INTENDED, "refusals": 0}
        try:
            async with self._database.transaction() as connection:
                await connection.execute(insert(endpoints).values(**row, created_at=now, updated_at=now))
        except IntegrityError as error:
            raise Overtaken from error

    async def note_attempt(self, endpoint: Endpoint, *, url: str, now: datetime) -> None:
        """A create for this URL is about to be sent. Raises `Overtaken`."""
        await self._change(endpoint, now=now, url=url, create_attempted_at=now)

    async def forget_attempt(self, endpoint: Endpoint, *, now: datetime) -> None:
        """The create that was sent has certainly made nothing. Raises `Overtaken`."""
        await self._change(endpoint, now=now, create_attempted_at=None)

    async def note_url(self, endpoint: Endpoint, *, url: str, now: datetime) -> None:
        """Rivya calls it there from now on. Raises `Overtaken`."""
        await self._change(endpoint, now=now, url=url, last_error=None)

    async def note_error(self, endpoint: Endpoint, *, code: str | None, now: datetime) -> None:
        """Why the last call about it failed, None where it went well."""
        if endpoint.last_error != code:
            await self._change(endpoint, now=now, last_error=code)

    async def serve(self, endpoint: Endpoint, *, rivya_id: str, url: str, sealed: str, now: datetime) -> None:
        """Keep what Rivya told of an intended endpoint: from now on it serves, and the one before it retires.

        Raises `Overtaken`, and then keeps nothing.
        """
        secret = {"id": str(uuid7(now)), "endpoint_id": endpoint.id, "sealed": sealed, "valid_from": now}
        news = {"rivya_id": rivya_id, "url": url, "create_attempted_at": None, "last_error": None}
        before = update(endpoints).where(endpoints.c.state == State.SERVING)
        async with self._database.transaction() as connection:
            await connection.execute(before.values(state=State.RETIRING, updated_at=now))
            # What was refused before its secret was known says nothing about how it fares.
            fresh = {"last_refused_at": None, "refusals": 0}
            await _execute(connection, _update(endpoint, now=now, state=State.SERVING, **news, **fresh))
            await connection.execute(insert(endpoint_secrets).values(**secret))

    async def retire(self, endpoint: Endpoint, *, now: datetime, overlap: timedelta) -> None:
        """It is gone at Rivya; its secrets stay valid for `overlap`. Raises `Overtaken`."""
        its_current = and_(endpoint_secrets.c.endpoint_id == endpoint.id, endpoint_secrets.c.valid_until.is_(None))
        async with self._database.transaction() as connection:
            await _execute(connection, _update(endpoint, now=now, state=State.RETIRED))
            await connection.execute(update(endpoint_secrets).where(its_current).values(valid_until=now + overlap))

    async def _change(self, endpoint: Endpoint, *, now: datetime, **values: Any) -> None:  # noqa: ANN401 - columns
        async with self._database.transaction() as connection:
            await _execute(connection, _update(endpoint, now=now, **values))


def _update(endpoint: Endpoint, *, now: datetime, **values: Any) -> Update:  # noqa: ANN401 - columns
    as_it_was = and_(endpoints.c.id == endpoint.id, endpoints.c.state == endpoint.state)
    return update(endpoints).where(as_it_was).values(updated_at=now, **values)


async def _execute(connection: AsyncConnection, statement: Update) -> None:
    if (await connection.execute(statement)).rowcount != 1:
        raise Overtaken


def _endpoint(row: RowMapping) -> Endpoint:
    return Endpoint(**{**row, "state": State(row["state"])})
