"""Fresh databases for tests, on SQLite and on PostgreSQL: empty, or copied from one that was migrated once."""

import asyncio
import secrets
import shutil
from functools import cached_property
from pathlib import Path
from typing import Protocol

import asyncpg
from sqlalchemy import make_url

from app.core.migrations import migrate


class PostgresServer(Protocol):
    """A server in which we may create databases: the private cluster, or the one of DATABASE_URL_TEST."""

    strategy: str
    """How it copies a template: FILE_COPY is cheaper unless files are on a disk that has to be waited for."""

    def url(self, database: str) -> str: ...


class GivenServer:
    """The server that DATABASE_URL_TEST names; its user must be allowed to create databases."""

    strategy = "WAL_LOG"

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+asyncpg")

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of one database of that server."""
        return self._url.set(database=database).render_as_string(hide_password=False)


class Databases(Protocol):
    """Makes databases and removes them again. Not for use inside a running event loop."""

    def empty(self) -> str:
        """The URL of a new database with nothing in it."""

    def migrated(self) -> str:
        """The URL of a new database with our tables in it."""

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected."""


class SqliteDatabases:
    """One file each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def empty(self) -> str:
        return _sqlite_url(self._new_file())

    def migrated(self) -> str:
        copy = self._new_file()
        shutil.copyfile(self._template, copy)
        return _sqlite_url(copy)

    def drop(self, url: str) -> None:
        path = str(make_url(url).database)
        for suffix in ("", "-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)

    @cached_property
    def _template(self) -> Path:
        path = self._new_file()
        asyncio.run(migrate(_sqlite_url(path)))
        if Path(f"{path}-wal").exists():
            raise AssertionError("migrate() left a connection open: the database file is not whole without its log")
        return path

    def _new_file(self) -> Path:
        return self._directory / f"{_fresh_name()}.db"


class PostgresDatabases:
    """One database each, all on one server."""

    def __init__(self, server: PostgresServer, *, maintenance: str = "postgres") -> None:
        self._server = server
        self._maintenance = maintenance
        self._created: set[str] = set()

    def empty(self) -> str:
        return self._create(template="template0")

    def migrated(self) -> str:
        return self._create(template=self._template)

    def drop(self, url: str) -> None:
        name = str(make_url(url).database)
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._created.discard(name)

    def shut(self, url: str) -> None:
        """End the sessions of a database and let no new ones in, until `open` is called."""
        name = str(make_url(url).database)
        self._execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        self._execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608

    def open(self, url: str) -> None:
        self._execute(f'ALTER DATABASE "{make_url(url).database}" ALLOW_CONNECTIONS true')

    def direct(self, url: str) -> str:
        """A URL of libpq's for the same database, without a pooler in between."""
        dsn = make_url(self._server.url(str(make_url(url).database))).set(drivername="postgresql")
        return dsn.render_as_string(hide_password=False)

    def close(self) -> None:
        """Remove what is left, the template included: a server that was lent to us is given back as it was."""
        for name in list(self._created):
            self.drop(self._server.url(name))

    @cached_property
    def _template(self) -> str:
        url = self._create(template="template0")
        asyncio.run(migrate(url))
        return str(make_url(url).database)

    def _create(self, *, template: str) -> str:
        name = _fresh_name()
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY {self._server.strategy}')
        self._created.add(name)
        return self._server.url(name)

    def _execute(self, statement: str) -> None:
        asyncio.run(_execute(self.direct(self._server.url(self._maintenance)), statement))


class PooledDatabases(PostgresDatabases):
    """PostgreSQL databases behind a PgBouncer in transaction mode."""

    def __init__(self, server: PostgresServer, *, pooler: str) -> None:
        super().__init__(server)
        self._pooler = make_url(pooler)

    def empty(self) -> str:
        return self._through_pooler(super().empty())

    def migrated(self) -> str:
        return self._through_pooler(super().migrated())

    def _through_pooler(self, url: str) -> str:
        pooled = make_url(url).set(host=self._pooler.host, port=self._pooler.port, query={"pgbouncer": "true"})
        return pooled.render_as_string(hide_password=False)


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def _fresh_name() -> str:
    return f"test_{secrets.token_hex(6)}"
