"""Our endpoints at Rivya, their secrets, rotations and history: the tables, and what is read and written in them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    Select,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    union,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database, Id, UtcDateTime, enum_check, metadata
from app.core.encryption import SecretBox
from app.core.records import uuid7
from app.endpoint.models import LIVE, Endpoint, State

ONE_EACH = text("state IN ('intended', 'created', 'proven', 'serving', 'manual')")
_CURRENT = text("valid_until IS NULL")

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Id, primary_key=True),
    Column(
        "path_key", Id, nullable=False, unique=True, comment="the random end of the callback path: proof it is ours"
    ),
    Column("url", Text, nullable=False),
    Column("rivya_id", Id, unique=True),
    Column("state", Text, nullable=False),
    Column("state_since", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("create_attempted_at", UtcDateTime, comment="a create was sent then, and what came of it is not known"),
    Column("rotation_requested_at", UtcDateTime, comment="a new secret is wanted since then"),
    Column("rotation_attempted_at", UtcDateTime, comment="a rotation was sent then, and what came of it is not known"),
    Column("test_asked_at", UtcDateTime, comment="a test delivery was asked for then"),
    Column("scheme", Text, comment="the signature scheme, pinned by proof"),
    Column("proven_at", UtcDateTime, comment="when the scheme was pinned"),
    Column("proven_by", Text, comment="the event whose delivery proved it"),
    Column("other_scheme", Text, comment="what deliveries proved while another was pinned"),
    Column("other_scheme_count", Integer, nullable=False, server_default=text("0")),
    Column("last_verified_at", UtcDateTime, comment="the last delivery that its secret verified"),
    Column("last_refused_at", UtcDateTime, comment="the last refusal at its secret path"),
    Column("refusals", Integer, nullable=False, comment="at its secret path, since the last verified delivery"),
    Column("last_error", Text, comment="why the last call to Rivya about it failed"),
    Column("failure_count", Integer, nullable=False, server_default=text("0"), comment="as Rivya counts"),
    Column("last_success_at", UtcDateTime, comment="as Rivya tells"),
    Column("last_failure_at", UtcDateTime, comment="as Rivya tells"),
    enum_check("state", State),
    # At most one row is in each of these states, even if two processes believe that they hold the lease.
    Index("uq_endpoints_state", "state", unique=True, postgresql_where=ONE_EACH, sqlite_where=ONE_EACH),
)

endpoint_secrets = Table(
    "endpoint_secrets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("endpoint_id", Id, ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("sealed", Text, nullable=False, comment="encrypted, under the key it names"),
    Column("valid_from", UtcDateTime, nullable=False),
    Column("valid_until", UtcDateTime, comment="null: current"),
    Column("proven_at", UtcDateTime, comment="the first delivery that it verified"),
    Index("ix_endpoint_secrets_endpoint_id", "endpoint_id"),
    Index("uq_endpoint_secrets_current", "endpoint_id", unique=True, postgresql_where=_CURRENT, sqlite_where=_CURRENT),
)

endpoint_history = Table(
    "endpoint_history",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("endpoint_id", Id, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("event", Text, nullable=False),
    Column("detail", Text, comment="a code or a scheme; never a secret, a path key or a body"),
)


_OF_SECRET = {"secret_since": endpoint_secrets.c.valid_from, "secret_proven_at": endpoint_secrets.c.proven_at}
_COLUMNS = tuple(
    _OF_SECRET[member.name].label(member.name) if member.name in _OF_SECRET else endpoints.c[member.name]
    for member in fields(Endpoint)
)
_WITH_CURRENT = and_(endpoint_secrets.c.endpoint_id == endpoints.c.id, endpoint_secrets.c.valid_until.is_(None))
_NEWEST = 20
"""More than can be created in an hour, because the number of creates in an hour is limited."""
_SEARCHED = 200
"""How many endpoints are searched for a proven scheme; without one there, it is proved again."""


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
    # PostgreSQL looks up an array of ids by key; with a subquery it would read the whole table.
    is_needed = e.id.in_(ids) if is_sqlite else e.id == func.any(func.array(ids.scalar_subquery()))
    return select(*_COLUMNS).outerjoin(endpoint_secrets, _WITH_CURRENT).where(is_needed).order_by(e.id.desc())


class StaleState(Exception):
    """The row has left the state that this step started from: another replica has changed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """A row of `endpoint_secrets`; the secret is encrypted."""

    id: str
    endpoint_id: str
    sealed: str = field(repr=False)
    valid_from: datetime
    valid_until: datetime | None
    proven_at: datetime | None


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the history: one step, repair or observation."""

    endpoint_id: str
    recorded_at: datetime
    event: str
    detail: str | None


class EndpointRepository:
    """Our endpoints and their secrets in the database. Methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._needed = _needed(is_sqlite=database.is_sqlite)

    async def endpoints(self) -> list[Endpoint]:
        """The endpoints still needed, newest first; read by index, so that old rows cost nothing.

        These are the ones in a state of `ONE_EACH`, those with a stored secret, the last 20, and of the last 200 the
        newest one with a scheme. Raises `DatabaseUnavailable`.
        """
        async with self._database.read() as connection:
            rows = (await connection.execute(self._needed)).mappings()
            return [Endpoint(**{**row, "state": State(row["state"])}) for row in rows]

    async def path_keys_among(self, keys: Collection[str]) -> set[str]:
        """Those of `keys` that any endpoint of ours has or had. Raises `DatabaseUnavailable`."""
        # The URL of a foreign endpoint may hold characters that a database refuses and that no key of ours has.
        usable = [key for key in keys if key.isascii() and key.isprintable()]
        async with self._database.read() as connection:
            rows = await connection.execute(select(endpoints.c.path_key).where(endpoints.c.path_key.in_(usable)))
            return set(rows.scalars())

    async def rivya_ids_among(self, ids: Collection[str]) -> set[str]:
        """Those of Rivya's `ids` that any endpoint of ours has or had. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(endpoints.c.rivya_id).where(endpoints.c.rivya_id.in_(ids)))
            return {rivya_id for rivya_id in rows.scalars() if rivya_id is not None}

    async def secrets(self, *, now: datetime) -> list[StoredSecret]:
        """The secrets that are valid now, newest first. Raises `DatabaseUnavailable`."""
        secret = endpoint_secrets.c
        # The secret of a retired endpoint is valid only until the time that was stored when it retired.
        valid = or_(and_(secret.valid_until.is_(None), endpoints.c.state != State.RETIRED), secret.valid_until > now)
        wanted = (
            select(*(secret[member.name] for member in fields(StoredSecret)))
            .join(endpoints, endpoints.c.id == secret.endpoint_id)
            .where(valid)
            .order_by(secret.id.desc())
        )
        async with self._database.read() as connection:
            return [StoredSecret(**row) for row in (await connection.execute(wanted)).mappings()]

    async def all_secrets(self) -> list[StoredSecret]:
        """Every stored secret. Raises `DatabaseUnavailable`."""
        columns = (endpoint_secrets.c[member.name] for member in fields(StoredSecret))
        async with self._database.read() as connection:
            return [StoredSecret(**row) for row in (await connection.execute(select(*columns))).mappings()]

    async def delete_secrets(self, lost: Sequence[StoredSecret], *, now: datetime, detail: str) -> None:
        """Delete these secrets, and add that to the history of their endpoints; a live one then gets a new secret."""
        async with self._database.transaction() as connection:
            ids = [secret.id for secret in lost]
            await connection.execute(delete(endpoint_secrets).where(endpoint_secrets.c.id.in_(ids)))
            for endpoint_id in sorted({secret.endpoint_id for secret in lost}):
                await record_event(connection, endpoint_id, event="secret_reset", now=now, detail=detail)

    async def history(self, *, limit: int = 200) -> list[Entry]:
        """The newest entries of all endpoints, newest first. Raises `DatabaseUnavailable`."""
        entry = endpoint_history.c
        newest = select(entry.endpoint_id, entry.recorded_at, entry.event, entry.detail)
        async with self._database.read() as connection:
            rows = await connection.execute(newest.order_by(entry.sequence.desc()).limit(limit))
            return [Entry(*row) for row in rows]

    async def add_intent(self, *, path_key: str, url: str, now: datetime) -> None:
        """Insert an intended endpoint. Raises `StaleState` if there is one already."""
        try:
            async with self._database.transaction() as connection:
                endpoint_id = await insert_endpoint(connection, State.INTENDED, path_key=path_key, url=url, now=now)
                await record_event(connection, endpoint_id, event=State.INTENDED, now=now)
        except IntegrityError as error:
            raise StaleState from error

    async def change(
        self,
        endpoint: Endpoint,
        *,
        now: datetime,
        event: str | None = None,
        detail: str | None = None,
        **values: Any,  # noqa: ANN401 - columns
    ) -> None:
        """Set columns of an endpoint, and add `event` to its history. Raises `StaleState` if it has left its state."""
        async with self._database.transaction() as connection:
            await _change(connection, endpoint, now=now, **values)
            if event is not None:
                await record_event(connection, endpoint.id, event=event, now=now, detail=detail)

    async def store_created(self, endpoint: Endpoint, *, rivya_id: str, url: str, sealed: str, now: datetime) -> None:
        """Make an intended endpoint the live one, with Rivya's id and its secret; the one before is now retiring.

        Raises `StaleState`, and then stores nothing.
        """
        # Deliveries that were refused before its secret was known are not a sign of bad health.
        fresh = {"create_attempted_at": None, "last_error": None, "last_refused_at": None, "refusals": 0}
        before = select(endpoints.c.id).where(endpoints.c.state.in_(LIVE)).with_for_update()
        async with self._database.transaction() as connection:
            for replaced in (await connection.execute(before)).scalars().all():
                retiring = {"state": State.RETIRING, "state_since": now, "updated_at": now}
                await connection.execute(update(endpoints).where(endpoints.c.id == replaced).values(**retiring))
                await record_event(connection, replaced, event=State.RETIRING, now=now)
            created = {"state": State.CREATED, "state_since": now, "rivya_id": rivya_id, "url": url}
            await _change(connection, endpoint, now=now, **created, **fresh)
            await _add_secret(connection, endpoint.id, sealed=sealed, now=now)
            await record_event(connection, endpoint.id, event=State.CREATED, now=now, detail=rivya_id)

    async def store_rotated(self, endpoint: Endpoint, *, sealed: str, now: datetime, overlap: timedelta) -> None:
        """Store the new secret; the one before is valid for `overlap`. Raises `StaleState`, and then stores nothing."""
        done = ("rotation_requested_at", "rotation_attempted_at", "test_asked_at", "last_error")
        async with self._database.transaction() as connection:
            await _change(connection, endpoint, now=now, **dict.fromkeys(done))
            await _end_secret(connection, endpoint.id, at=now + overlap)
            await _add_secret(connection, endpoint.id, sealed=sealed, now=now)
            await record_event(connection, endpoint.id, event="rotated", now=now)

    async def retire(self, endpoint: Endpoint, *, now: datetime, overlap: timedelta, why: str) -> None:
        """Retire an endpoint that no longer exists at Rivya; its secret is valid for `overlap`. Raises `StaleState`."""
        async with self._database.transaction() as connection:
            await _change(connection, endpoint, now=now, state=State.RETIRED, state_since=now)
            await _end_secret(connection, endpoint.id, at=now + overlap)
            await record_event(connection, endpoint.id, event=State.RETIRED, now=now, detail=why)

    async def drop_expired_secrets(self, *, now: datetime) -> None:
        """Delete the secrets that have expired."""
        async with self._database.transaction() as connection:
            await connection.execute(delete(endpoint_secrets).where(endpoint_secrets.c.valid_until <= now))


async def insert_endpoint(connection: AsyncConnection, state: State, *, path_key: str, url: str, now: datetime) -> str:
    """Insert an endpoint within a transaction; returns its id."""
    endpoint_id = str(uuid7(now))
    row = {"id": endpoint_id, "path_key": path_key, "url": url, "state": state, "refusals": 0}
    stamped = {"state_since": now, "created_at": now, "updated_at": now}
    await connection.execute(insert(endpoints).values(**row, **stamped))
    return endpoint_id


async def record_event(
    connection: AsyncConnection, endpoint_id: str, *, event: str, now: datetime, detail: str | None = None
) -> None:
    """Add an entry to the history, within the transaction of the change that it describes."""
    row = {"endpoint_id": endpoint_id, "recorded_at": now, "event": event, "detail": detail}
    await connection.execute(insert(endpoint_history).values(**row))


async def _change(connection: AsyncConnection, endpoint: Endpoint, *, now: datetime, **values: Any) -> None:  # noqa: ANN401 - columns
    # A delivery may prove an endpoint at any time, so only a change of state requires the exact state.
    states = LIVE if endpoint.state in LIVE and "state" not in values else {endpoint.state}
    unchanged = and_(endpoints.c.id == endpoint.id, endpoints.c.state.in_(states))
    statement = update(endpoints).where(unchanged).values(updated_at=now, **values)
    if (await connection.execute(statement)).rowcount != 1:
        raise StaleState


async def _add_secret(connection: AsyncConnection, endpoint_id: str, *, sealed: str, now: datetime) -> None:
    row = {"id": str(uuid7(now)), "endpoint_id": endpoint_id, "sealed": sealed, "valid_from": now}
    await connection.execute(insert(endpoint_secrets).values(**row))


async def _end_secret(connection: AsyncConnection, endpoint_id: str, *, at: datetime) -> None:
    current = and_(endpoint_secrets.c.endpoint_id == endpoint_id, endpoint_secrets.c.valid_until.is_(None))
    await connection.execute(update(endpoint_secrets).where(current).values(valid_until=at))


@dataclass(frozen=True, slots=True)
class ReencryptionResult:
    """How many secrets were encrypted again, of how many."""

    changed: int
    total: int


async def reencrypt_secrets(
    database: Database, keys: SecretBox, columns: Sequence[Column[Any]] = (endpoint_secrets.c.sealed,)
) -> ReencryptionResult:
    """Encrypt every secret in `columns` with the newest key, so that older keys can be removed; in one transaction.

    Each of their tables has a column `id`. Raises `DecryptionFailed` if a secret can't be decrypted,
    `DatabaseUnavailable`; then nothing is changed.
    """
    changed = total = 0
    async with database.transaction() as connection:
        for column in columns:
            key = column.table.c.id
            every = select(key, column.label("sealed")).where(column.is_not(None)).order_by(key).with_for_update()
            for row in (await connection.execute(every)).all():
                total += 1
                # Those with the newest key must decrypt too, or a mistyped key would go unnoticed.
                plain = keys.decrypt(row.sealed)
                if not keys.is_newest(row.sealed):
                    anew = update(column.table).where(key == row.id)
                    await connection.execute(anew.values({column: keys.encrypt(plain)}))
                    changed += 1
    return ReencryptionResult(changed, total)
