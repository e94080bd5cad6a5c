"""What is written down about our endpoints and their lives; each method is one transaction."""

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping, Select, Update, and_, delete, func, insert, or_, select, union, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.core.encryption import SecretBox
from app.core.ids import uuid7
from app.endpoint.models import LIVE, Endpoint, State
from app.endpoint.tables import ONE_EACH, endpoint_history, endpoint_secrets, endpoints

_OF_SECRET = {"secret_since": endpoint_secrets.c.valid_from, "secret_proven_at": endpoint_secrets.c.proven_at}
_COLUMNS = tuple(
    _OF_SECRET[member.name].label(member.name) if member.name in _OF_SECRET else endpoints.c[member.name]
    for member in fields(Endpoint)
)
_CURRENT = and_(endpoint_secrets.c.endpoint_id == endpoints.c.id, endpoint_secrets.c.valid_until.is_(None))
_NEWEST = 20
"""More than are made in an hour, which is counted."""
_SEARCHED = 200
"""For a scheme that was proved; where none of so many has one, it is proved anew."""


def _needed(*, is_sqlite: bool) -> Select[Any]:
    e = endpoints.c
    newest = select(e.id).order_by(e.id.desc())
    last = select(e.id, e.scheme).order_by(e.id.desc()).limit(_SEARCHED).subquery("last").c
    with_scheme = select(last.id).where(last.scheme.is_not(None)).order_by(last.id.desc()).limit(1)
    ids = union(
        select(e.id).where(ONE_EACH),
        select(endpoint_secrets.c.endpoint_id),
        select(newest.limit(_NEWEST).subquery("newest").c.id),
        select(with_scheme.subquery("with_scheme").c.id),
    )
    # As an array, PostgreSQL looks them up by key; it would join a subquery by reading the table.
    is_needed = e.id.in_(ids) if is_sqlite else e.id == func.any(func.array(ids.scalar_subquery()))
    return select(*_COLUMNS).outerjoin(endpoint_secrets, _CURRENT).where(is_needed).order_by(e.id.desc())


class Overtaken(Exception):
    """The row is no longer in the state this step began with: another replica has gone on meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """A secret as stored: sealed."""

    id: str
    endpoint_id: str
    sealed: str = field(repr=False)
    valid_from: datetime
    valid_until: datetime | None
    proven_at: datetime | None


class Registry:
    """Our endpoints and their secrets in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._needed = _needed(is_sqlite=database.is_sqlite)

    async def endpoints(self) -> list[Endpoint]:
        """Those that matter, the newest first; read from indexes, however many there ever were.

        They are what is not retired, what has a secret stored, the last twenty, and of the last two hundred the one
        whose scheme was proved last. Raises `DatabaseUnavailable`.
        """
        async with self._database.read() as connection:
            return [_endpoint(row) for row in (await connection.execute(self._needed)).mappings()]

    async def path_keys_among(self, keys: Collection[str]) -> set[str]:
        """Those of these that are ours, of any endpoint there ever was. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(endpoints.c.path_key).where(endpoints.c.path_key.in_(keys)))
            return set(rows.scalars())

    async def secrets(self, *, now: datetime) -> list[StoredSecret]:
        """Those that are valid now, the newest first."""
        secret = endpoint_secrets.c
        # The secret of an endpoint that is gone is valid only as long as was said when it went.
        valid = or_(and_(secret.valid_until.is_(None), endpoints.c.state != State.RETIRED), secret.valid_until > now)
        wanted = (
            select(*(secret[member.name] for member in fields(StoredSecret)))
            .join(endpoints, endpoints.c.id == secret.endpoint_id)
            .where(valid)
            .order_by(secret.id.desc())
        )
        async with self._database.read() as connection:
            return [StoredSecret(**row) for row in (await connection.execute(wanted)).mappings()]

    async def add_intent(self, *, path_key: str, url: str, now: datetime) -> None:
        """Write down an endpoint that is to be. Raises `Overtaken` where there is one already."""
        endpoint_id = str(uuid7(now))
        row = {"id": endpoint_id, "path_key": path_key, "url": url, "state": State.INTENDED, "refusals": 0}
        try:
            async with self._database.transaction() as connection:
                stamped = {"state_since": now, "created_at": now, "updated_at": now}
                await connection.execute(insert(endpoints).values(**row, **stamped))
                await record_event(connection, endpoint_id, event=State.INTENDED, now=now)
        except IntegrityError as error:
            raise Overtaken from error

    async def change(self, endpoint: Endpoint, *, now: datetime, event: str | None = None, **values: Any) -> None:  # noqa: ANN401 - columns
        """Set columns of an endpoint that is still in its state; `event` goes into its history. Raises `Overtaken`."""
        async with self._database.transaction() as connection:
            await change(connection, endpoint, now=now, **values)
            if event is not None:
                await record_event(connection, endpoint.id, event=event, now=now)

    async def record_error(self, endpoint: Endpoint, *, code: str | None, now: datetime) -> None:
        """Why the last call about it failed, None where it went well."""
        if endpoint.last_error != code:
            await self.change(endpoint, now=now, last_error=code)

    async def keep_created(self, endpoint: Endpoint, *, rivya_id: str, url: str, sealed: str, now: datetime) -> None:
        """Keep what Rivya told of an intended endpoint: it is the live one from now on, and those before it retire.

        Raises `Overtaken`, and then keeps nothing.
        """
        # What was refused before its secret was known says nothing about how it fares.
        fresh = {"create_attempted_at": None, "last_error": None, "last_refused_at": None, "refusals": 0}
        news = {"state": State.CREATED, "state_since": now, "rivya_id": rivya_id, "url": url, **fresh}
        before = select(endpoints.c.id).where(endpoints.c.state.in_(LIVE)).with_for_update()
        async with self._database.transaction() as connection:
            for replaced in (await connection.execute(before)).scalars().all():
                retiring = {"state": State.RETIRING, "state_since": now, "updated_at": now}
                await connection.execute(update(endpoints).where(endpoints.c.id == replaced).values(**retiring))
                await record_event(connection, replaced, event=State.RETIRING, now=now)
            await change(connection, endpoint, now=now, **news)
            await add_secret(connection, endpoint.id, sealed=sealed, now=now)
            await record_event(connection, endpoint.id, event=State.CREATED, now=now, detail=rivya_id)

    async def serve(self, endpoint: Endpoint, *, now: datetime) -> None:
        """It is proven, so it serves. Raises `Overtaken`."""
        await self.change(endpoint, now=now, event=State.SERVING, state=State.SERVING, state_since=now)

    async def retire(self, endpoint: Endpoint, *, now: datetime, overlap: timedelta, why: str | None = None) -> None:
        """It is gone at Rivya; its secrets stay valid for `overlap`. Raises `Overtaken`."""
        its_current = and_(endpoint_secrets.c.endpoint_id == endpoint.id, endpoint_secrets.c.valid_until.is_(None))
        async with self._database.transaction() as connection:
            await change(connection, endpoint, now=now, state=State.RETIRED, state_since=now)
            await connection.execute(update(endpoint_secrets).where(its_current).values(valid_until=now + overlap))
            await record_event(connection, endpoint.id, event=State.RETIRED, now=now, detail=why)

    async def drop_expired_secrets(self, *, now: datetime) -> None:
        """Forget secrets that nothing is verified with any more."""
        async with self._database.transaction() as connection:
            await connection.execute(delete(endpoint_secrets).where(endpoint_secrets.c.valid_until <= now))


async def change(connection: AsyncConnection, endpoint: Endpoint, *, now: datetime, **values: Any) -> None:  # noqa: ANN401 - columns
    """Set columns within a transaction. Raises `Overtaken` where its state is no longer the one we know."""
    if (await connection.execute(_update(endpoint, now=now, **values))).rowcount != 1:
        raise Overtaken


async def add_secret(connection: AsyncConnection, endpoint_id: str, *, sealed: str, now: datetime) -> None:
    """Store a secret as the current one, within a transaction that has ended the one before."""
    row = {"id": str(uuid7(now)), "endpoint_id": endpoint_id, "sealed": sealed, "valid_from": now}
    await connection.execute(insert(endpoint_secrets).values(**row))


def _update(endpoint: Endpoint, *, now: datetime, **values: Any) -> Update:  # noqa: ANN401 - columns
    # A delivery may prove an endpoint at any moment; only a change of state itself depends on the exact one.
    states = LIVE if endpoint.state in LIVE and "state" not in values else {endpoint.state}
    as_it_was = and_(endpoints.c.id == endpoint.id, endpoints.c.state.in_(states))
    return update(endpoints).where(as_it_was).values(updated_at=now, **values)


def _endpoint(row: RowMapping) -> Endpoint:
    return Endpoint(**{**row, "state": State(row["state"])})


# What is written down about rotations: wanted, attempted, done; each method is one transaction.


class Why(StrEnum):
    """Why a secret is replaced."""

    OPERATOR = "operator"
    SCHEDULE = "schedule"
    LOST = "secret_lost"


class Rotations:
    """A rotation that was attempted stays written down until its secret is stored, whatever happens between."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def request(self, endpoint: Endpoint, *, why: Why, now: datetime) -> None:
        """A new secret is wanted; whoever leads sees to it. Raises `Overtaken`."""
        async with self._database.transaction() as connection:
            await change(connection, endpoint, now=now, rotation_requested_at=now)
            await record_event(connection, endpoint.id, event="rotation_requested", now=now, detail=why)

    async def record_attempt(self, endpoint: Endpoint, *, now: datetime) -> None:
        """A rotation is sent next: Rivya may sign with a secret we don't hold from now on. Raises `Overtaken`."""
        async with self._database.transaction() as connection:
            await change(connection, endpoint, now=now, rotation_attempted_at=now)

    async def take_back(self, endpoint: Endpoint, *, now: datetime, code: str, is_final: bool) -> None:
        """The attempt certainly changed nothing; `is_final`: it isn't wanted any more either. Raises `Overtaken`.

        An earlier attempt whose outcome is unknown stays in doubt.
        """
        requested = None if is_final else endpoint.rotation_requested_at
        before = {"rotation_attempted_at": endpoint.rotation_attempted_at, "rotation_requested_at": requested}
        async with self._database.transaction() as connection:
            await change(connection, endpoint, now=now, **before)
            if is_final:
                await record_event(connection, endpoint.id, event="rotation_refused", now=now, detail=code)

    async def keep(self, endpoint: Endpoint, *, sealed: str, now: datetime, overlap: timedelta) -> None:
        """Store the new secret; the one before is accepted for `overlap`. Raises `Overtaken`, keeping nothing."""
        mine = and_(endpoint_secrets.c.endpoint_id == endpoint.id, endpoint_secrets.c.valid_until.is_(None))
        done = {"rotation_requested_at": None, "rotation_attempted_at": None, "test_asked_at": None, "last_error": None}
        async with self._database.transaction() as connection:
            await change(connection, endpoint, now=now, **done)
            await connection.execute(update(endpoint_secrets).where(mine).values(valid_until=now + overlap))
            await add_secret(connection, endpoint.id, sealed=sealed, now=now)
            await record_event(connection, endpoint.id, event="rotated", now=now)


# What became of our endpoints, step by step: written in the transaction of the step itself.


_MOST = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One step, repair or observation."""

    endpoint_id: str
    recorded_at: datetime
    event: str
    detail: str | None


async def record_event(
    connection: AsyncConnection, endpoint_id: str, *, event: str, now: datetime, detail: str | None = None
) -> None:
    """Write an entry within the transaction of what it tells of."""
    row = {"endpoint_id": endpoint_id, "recorded_at": now, "event": event, "detail": detail}
    await connection.execute(insert(endpoint_history).values(**row))


async def newest(database: Database, *, most: int = _MOST) -> list[Entry]:
    """The newest entries of all endpoints, newest first. Raises `DatabaseUnavailable`."""
    columns = endpoint_history.c
    statement = select(columns.endpoint_id, columns.recorded_at, columns.event, columns.detail)
    async with database.read() as connection:
        rows = await connection.execute(statement.order_by(columns.sequence.desc()).limit(most))
        return [Entry(*row) for row in rows]


# Encrypts every stored secret anew under the newest key, so that older keys can be put away.


_ALL_SECRETS = (
    select(endpoint_secrets.c.id, endpoint_secrets.c.sealed).order_by(endpoint_secrets.c.id).with_for_update()
)


@dataclass(frozen=True, slots=True)
class ReencryptionResult:
    """What was done."""

    changed: int
    total: int


async def reencrypt_secrets(database: Database, keys: SecretBox) -> ReencryptionResult:
    """One transaction: all are encrypted under the newest key afterwards, or nothing was changed.

    Raises `DecryptionFailed` where one can't be opened, `DatabaseUnavailable`.
    """
    async with database.transaction() as connection:
        stored = (await connection.execute(_ALL_SECRETS)).all()
        changed = [(row.id, keys.decrypt(row.sealed)) for row in stored if not keys.is_newest(row.sealed)]
        for secret_id, secret in changed:
            anew = update(endpoint_secrets).where(endpoint_secrets.c.id == secret_id)
            await connection.execute(anew.values(sealed=keys.encrypt(secret)))
        # Those that are under the newest key already must open too, or a typing error would go unnoticed.
        for row in stored:
            if keys.is_newest(row.sealed):
                keys.decrypt(row.sealed)
    return ReencryptionResult(len(changed), len(stored))
