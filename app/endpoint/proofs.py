"""What deliveries have proved: the scheme is pinned once, a secret is known to work, and contradictions are counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.core.ids import path_key, uuid7
from app.endpoint import history
from app.endpoint.endpoint import Endpoint
from app.endpoint.state import State
from app.endpoint.tables import endpoint_secrets, endpoints

_PINS = select(endpoints.c.id, endpoints.c.state, endpoints.c.scheme).order_by(endpoints.c.id.desc()).with_for_update()


@dataclass(frozen=True, slots=True)
class Proven:
    """A delivery that a secret verified; without ids the secret was given by hand."""

    scheme: str
    event_id: str
    endpoint_id: str | None
    secret_id: str | None


@dataclass(frozen=True, slots=True)
class _Pin:
    id: str
    state: str
    scheme: str | None


class Proofs:
    """Each method is one transaction; of several that prove at once the first one pins."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prove(self, proven: Proven, *, now: datetime, is_pinning: bool) -> str:
        """Keep what was proved; returns the scheme that is pinned now, which may be another replica's.

        `is_pinning`: the scheme is to be pinned, not given by a setting. A proof under another scheme than the pinned
        one changes nothing.
        """
        try:
            return await self._prove(proven, now=now, is_pinning=is_pinning)
        except IntegrityError:  # another replica has just written down the endpoint that was made by hand
            return await self._prove(proven, now=now, is_pinning=is_pinning)

    async def _prove(self, proven: Proven, *, now: datetime, is_pinning: bool) -> str:
        async with self._database.transaction() as connection:
            known = [_Pin(*row) for row in await connection.execute(_PINS)]
            pinned = next((row.scheme for row in known if row.scheme is not None), None)
            if is_pinning and pinned is not None and pinned != proven.scheme:
                return pinned
            endpoint_id = proven.endpoint_id or await _manual(connection, known, now=now)
            if is_pinning and not any(row.id == endpoint_id and row.scheme is not None for row in known):
                pin = {"scheme": proven.scheme, "proven_at": now, "proven_by": proven.event_id}
                await connection.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(**pin))
                detail = f"{proven.scheme} by {proven.event_id}"
                await history.note(connection, endpoint_id, event="scheme_pinned", now=now, detail=detail)
            await _advance(connection, endpoint_id, proven, now=now)
            return proven.scheme

    async def note_other(self, endpoint_id: str, scheme: str) -> None:
        """A delivery at this endpoint's path was refused that another scheme than the pinned one proves."""
        counted = {"other_scheme": scheme, "other_scheme_count": endpoints.c.other_scheme_count + 1}
        async with self._database.transaction() as connection:
            await connection.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(**counted))

    async def unpin(self, endpoint: Endpoint, *, now: datetime) -> None:
        """Forget the pinned scheme, by order of an admin: the next delivery that calibrates pins anew."""
        nothing = {"scheme": None, "proven_at": None, "proven_by": None, "other_scheme": None, "other_scheme_count": 0}
        async with self._database.transaction() as connection:
            await connection.execute(_PINS)
            await connection.execute(update(endpoints).values(**nothing))
            its_secrets = endpoint_secrets.c.endpoint_id == endpoint.id
            await connection.execute(update(endpoint_secrets).where(its_secrets).values(proven_at=None))
            again = update(endpoints).where(endpoints.c.id == endpoint.id)
            await connection.execute(again.values(test_asked_at=None, updated_at=now))
            await history.note(connection, endpoint.id, event="scheme_unpinned", now=now, detail=endpoint.scheme)


async def _manual(connection: AsyncConnection, known: Sequence[_Pin], *, now: datetime) -> str:
    """The row of the endpoint that was made by hand; its path key is told to nobody, since its path has none."""
    for pin in known:
        if pin.state == State.MANUAL:
            return pin.id
    endpoint_id = str(uuid7(now))
    stamped = {"state_since": now, "created_at": now, "updated_at": now}
    row = {"id": endpoint_id, "path_key": path_key(), "url": "", "state": State.MANUAL, "refusals": 0}
    await connection.execute(insert(endpoints).values(**row, **stamped))
    return endpoint_id


async def _advance(connection: AsyncConnection, endpoint_id: str, proven: Proven, *, now: datetime) -> None:
    """The secret works; an endpoint that was only created is proven by that."""
    this = endpoint_secrets.c.id == proven.secret_id
    unproven = and_(this, endpoint_secrets.c.proven_at.is_(None))
    await connection.execute(update(endpoint_secrets).where(unproven).values(proven_at=now))
    created = and_(endpoints.c.id == endpoint_id, endpoints.c.state == State.CREATED)
    news = {"state": State.PROVEN, "state_since": now, "updated_at": now}
    if (await connection.execute(update(endpoints).where(created).values(**news))).rowcount:
        await history.note(connection, endpoint_id, event=State.PROVEN, now=now, detail=proven.event_id)
