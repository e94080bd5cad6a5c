"""Everything that stands around the server under measurement: cores, a private PostgreSQL, fresh databases."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import text

from app.core.database import Database
from bench.machine import cores
from tests.support.databases import PostgresDatabases, SqliteDatabases
from tests.support.postgres import PostgresCluster

Result = TypeVar("Result")
# What initdb would have written: the tests' own cluster is smaller.
_DEFAULTS = {"shared_buffers": "128MB", "max_connections": "100", "fsync": "on", "synchronous_commit": "on"}


@dataclass(frozen=True, slots=True)
class World:
    """Where measurements are made."""

    server_core: int
    other_core: int
    """Of the generator, which is this process, and of PostgreSQL."""
    cluster: PostgresCluster
    postgres: PostgresDatabases
    sqlite: SqliteDatabases
    filled: dict[str, str] = field(default_factory=dict)
    """Databases that took long to fill, by what is in them: for the next section, which has to drop them."""

    def fresh(self, kind: str) -> str:
        """The URL of a new database with our tables in it."""
        return self.sqlite.migrated() if kind == "sqlite" else self.postgres.migrated()

    def drop(self, url: str) -> None:
        """Remove a database that `fresh` made."""
        (self.sqlite if url.startswith("sqlite") else self.postgres).drop(url)


@contextmanager
def made_world() -> Iterator[World]:
    """Pin this process, and with it all that it starts, to the second core; start PostgreSQL there."""
    server_core, other_core = cores()
    os.sched_setaffinity(0, {other_core})
    with PostgresCluster(**_DEFAULTS) as cluster, tempfile.TemporaryDirectory(prefix="receiver-bench-") as directory:
        databases = PostgresDatabases(cluster)
        yield World(server_core, other_core, cluster, databases, SqliteDatabases(Path(directory)))


def on_postgres(url: str, act: Callable[[Any], Awaitable[Result]]) -> Result:
    """Do something with a connection of asyncpg's, and close it."""

    async def run() -> Result:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return await act(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


async def on_database(database: Database, statement: str) -> tuple[Any, ...]:
    """The first row of a statement."""
    async with database.read() as connection:
        return tuple((await connection.execute(text(statement))).one())


def postgres_version(url: str) -> str:
    """As the server tells it."""
    version: str = on_postgres(url, lambda connection: connection.fetchval("SHOW server_version"))
    return version
