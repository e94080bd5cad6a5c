"""The audit: one row for each act of an operator and each refused call of an admin's route, kept for 400 days."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from fastapi import Request
from sqlalchemy import Column, Index, Table, Text, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.clock import Clock
from app.core.database import Database, Id, UtcDateTime, metadata
from app.core.middleware import ensure_request_id
from app.core.pagination import IN_ORDER, IdPage, Part, Walk, read_page
from app.core.proxies import client_address
from app.core.records import uuid7, uuid7_beginning
from app.core.urls import Network

RETENTION: Final = timedelta(days=400)
_SECONDS_BETWEEN_FLUSHES: Final = 1.0
_MOST_REFUSALS: Final = 20
"""In memory, until they are stored; of the others a row says how many, so that no caller fills the disk with them."""
_BETWEEN_PRUNINGS: Final = 3600.0

audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("actor", Id, nullable=False, comment="name of the token, or `command line`"),
    Column("action", Id, nullable=False, comment="such as token.created"),
    Column("target", Id, comment="the name or id of what was acted upon"),
    Column("detail", Text, comment="never a secret"),
    Column("remote_address", Text),
    Column("request_id", Text),
    Index("ix_audit_recorded_at", "recorded_at"),
)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, from where."""

    name: str
    remote_address: str | None = None
    request_id: str | None = None


COMMAND_LINE: Final = Actor("command line")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries are listed; None does not filter."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    recorded_after: datetime | None = None
    """Recorded at this time or later."""
    recorded_before: datetime | None = None
    """Recorded before this time."""


async def write_audit(
    connection: AsyncConnection, actor: Actor, action: str, *, now: datetime, target: str | None, detail: str = ""
) -> None:
    """Write one row in the transaction of the act itself."""
    await connection.execute(insert(audit).values(_row(actor, action, now=now, target=target, detail=detail)))


def _row(actor: Actor, action: str, *, now: datetime, target: str | None = None, detail: str = "") -> dict[str, Any]:
    return {
        "id": str(uuid7(now)),
        "recorded_at": now,
        "actor": actor.name,
        "action": action,
        "target": target,
        "detail": detail or None,
        "remote_address": actor.remote_address,
        "request_id": actor.request_id,
    }


class Audit:
    """Writes and reads the audit. Methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, *, clock: Clock, trusted_proxies: Sequence[Network] = ()) -> None:
        self._database = database
        self._clock = clock
        self._trusted_proxies = trusted_proxies
        self._refused: list[dict[str, Any]] = []
        self._left_out = 0
        self._pruned_at: float | None = None

    def actor(self, request: Request) -> Actor:
        """The caller of an authorized request."""
        return Actor(request.state.caller.name, self.address(request), ensure_request_id(request.scope))

    def address(self, request: Request) -> str | None:
        """The address of the client, as the trusted proxies name it."""
        return client_address(request.scope, self._trusted_proxies)

    async def record_act(self, request: Request) -> None:
        """Write one row before an act of an admin, so that none is without its row. Changes of tokens write theirs."""
        route = getattr(request.scope.get("route"), "path", "none")
        if route.startswith(("/api/v1/tokens", "/console/tokens")):
            return
        ids = " ".join(value for value in map(str, request.path_params.values()) if value.isprintable())
        async with self._database.transaction() as connection:
            action = f"{request.method} {route}"
            await write_audit(connection, self.actor(request), action, now=self._clock.now(), target=ids or None)

    def refused(self, request: Request) -> None:
        """Note the call of an admin's route by a token that may not. It is stored within a second or so."""
        if len(self._refused) >= _MOST_REFUSALS:
            self._left_out += 1
            return
        route = getattr(request.scope.get("route"), "path", "none")
        row = _row(self.actor(request), "call.refused", now=self._clock.now(), target=f"{request.method} {route}")
        self._refused.append(row)

    async def run_once(self) -> float:
        """Store the refused calls, and delete what is too old; returns the seconds until the next run."""
        if self._refused:
            await self._store()
        now = self._clock.monotonic()
        if self._pruned_at is None or now - self._pruned_at >= _BETWEEN_PRUNINGS:
            async with self._database.transaction() as connection:
                await connection.execute(delete(audit).where(audit.c.recorded_at < self._clock.now() - RETENTION))
            self._pruned_at = now
        return _SECONDS_BETWEEN_FLUSHES

    async def _store(self) -> None:
        rows, left_out = list(self._refused), self._left_out
        if left_out:
            detail = f"{left_out} more refused calls by this time, which are not listed"
            rows.append(_row(Actor("the receiver"), "call.refused", now=self._clock.now(), detail=detail))
        async with self._database.transaction() as connection:
            await connection.execute(insert(audit), rows)
        del self._refused[: len(rows) - bool(left_out)]
        self._left_out -= left_out

    async def list(self, chosen: AuditFilter, *, after: str | None, limit: int) -> IdPage:
        """At most `limit` rows that come after the row with the id `after`, newest first."""
        statement, first, end = select(audit), chosen.recorded_after, chosen.recorded_before
        if first is not None:
            statement = statement.where(audit.c.recorded_at >= first)
        if end is not None:
            statement = statement.where(audit.c.recorded_at < end)
        part = Part(
            after=None if after is None else (after,),
            first=None if first is None else uuid7_beginning(first),
            end=None if end is None else f"{uuid7_beginning(end)}~",  # behind the ids of this millisecond
        )
        matching = {
            name: value for name in ("actor", "action", "target") if (value := getattr(chosen, name)) is not None
        }
        async with self._database.read_for_caller(plan=IN_ORDER) as connection:
            return await read_page(connection, Walk(statement, (audit.c.id,)), part, matching, limit=limit)
