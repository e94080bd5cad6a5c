"""The commands `migrate`, to this release's schema, and `copy`, of the whole record into another database."""

import hashlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
import typer
import uvloop
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.client.output import fail, print_json, shown_wait
from app.core import logs, migrations
from app.core.clock import SystemClock
from app.core.database import Database, DatabaseInUse, metadata
from app.core.database_url import normal_url
from app.core.errors import DatabaseUnavailable
from app.core.leases import leases
from app.core.setting_sources import SettingsInvalid
from app.core.settings import load_database
from app.operations.replicas import replicas


def migrate(*, only_check: bool, only_sql: bool, down_to: str | None, as_json: bool) -> None:
    """Migrate the database of DATABASE_URL; no other setting is needed.

    The exit status is 1 if that fails or the database isn't at the wanted revision, 2 for invalid settings.
    """
    logs.configure("console", least=logging.WARNING)
    try:
        database = Database(load_database().database_url)
    except SettingsInvalid as error:
        fail(str(error), status=2)
    try:
        uvloop.run(_migrate(database, only_check=only_check, only_sql=only_sql, down_to=down_to, as_json=as_json))
    except DatabaseUnavailable as error:
        fail(f"DATABASE_URL: the database can't be reached ({error.reason or 'no answer'})")
    except migrations.TableTaken as error:
        fail(f"DATABASE_URL: {error}")
    except CommandError as error:
        fail(f"{error}; this release knows {', '.join(sorted(migrations.known()))}")


async def _migrate(database: Database, *, only_check: bool, only_sql: bool, down_to: str | None, as_json: bool) -> None:
    try:
        with shown_wait(f"for the database at {database.url.render_as_string(hide_password=True)}"):
            before = after = await migrations.current(database) if database.exists else None
        if only_sql:
            typer.echo(migrations.migration_sql(database.url.get_backend_name(), since=before), nl=False)
            return
        if not only_check:
            with shown_wait("for the migrations, or for another process that migrates"):
                await migrations.migrate_database(database, down_to=down_to)
            after = await migrations.current(database)
    finally:
        await database.dispose()
    wanted = migrations.head()
    is_done = down_to is not None or after == wanted or (after is not None and after not in migrations.known())
    if as_json:
        print_json({"revision": after, "before": before, "wanted": wanted, "done": is_done})
    else:
        change = "" if before == after else f", was at {before or 'none'}"
        typer.echo(f"at {after or 'none'}{change}; this release is written for {wanted}")
    if not is_done:
        raise typer.Exit(1)


_ROWS_AT_ONCE: Final = 200
"""Each may hold a body of RECEIVER_MAX_BODY_BYTES."""
_ALIVE: Final = timedelta(seconds=30)
"""A process that had a heartbeat within this time runs: they come every 10 s, and the last is removed at the end."""
_OF_PROCESSES: Final = (leases, replicas)
"""Tables of what runs now, which are not copied."""
_WITH_ONE_ROW: Final = ("feed", "notification_dispatch", "token_revision")
"""Tables in which migrations write a row."""


class CopyRefused(Exception):
    """Nothing was copied; the text says why, and what to do."""


def copy(source: str, target: str, *, as_json: bool) -> None:
    """Copy the record at the URL `source` to the URL `target`, and print what was copied.

    The exit status is 1 if that is refused or fails, and then nothing is written but empty tables; 2 for invalid URLs.
    """
    import app.main  # noqa: F401 - whose imports add every table to the metadata

    logs.configure("console", least=logging.WARNING)
    urls = {}
    for option, url in (("--from", source), ("--to", target)):
        try:
            urls[option] = normal_url(url)
        except ValueError as error:
            fail(f"{option}: {error}", status=2)
    try:
        counts = uvloop.run(_run_copy(Database(urls["--from"]), Database(urls["--to"])))
    except (CopyRefused, DatabaseInUse, migrations.TableTaken) as error:
        fail(f"nothing was copied: {error}")
    except DatabaseUnavailable as error:
        fail(f"nothing was copied: a database can't be used ({error.reason or 'no answer'})")
    if as_json:
        print_json({"tables": counts, "rows": sum(counts.values())})
        return
    for name, count in counts.items():
        typer.echo(f"{name}: {count}")
    typer.echo(f"copied {sum(counts.values())} rows; what the target holds now is the same, by counts and digests")


async def _run_copy(source: Database, target: Database) -> dict[str, int]:
    try:
        if not source.exists:
            raise CopyRefused(f"--from: {source.url.database} does not exist")
        if source.url == target.url:
            raise CopyRefused("--from and --to are the same database")
        for database in (source, target):
            database.lock()
        if (revision := await migrations.current(source)) != migrations.head():
            raise CopyRefused(
                f"--from: is at revision {revision or 'none'}, and this release is written for {migrations.head()}: "
                "run `rivya-receiver migrate` on it"
            )
        await _refuse_if_used(source)
        await migrations.migrate_database(target)
        with shown_wait("until every row is copied"):
            return await _copy(source, target)
    finally:
        await source.dispose()
        await target.dispose()


async def _refuse_if_used(source: Database) -> None:
    """SQLite is locked by its process; on PostgreSQL heartbeats tell. Raises `CopyRefused`."""
    since = SystemClock().now() - _ALIVE
    alive = sa.select(sa.func.count()).select_from(replicas).where(replicas.c.seen_at > since)
    async with source.read() as connection:
        number = 0 if source.is_sqlite else await connection.scalar(alive)
    if number:
        raise CopyRefused(
            f"--from: {number} receivers use it: stop them; after one was killed wait {_ALIVE.seconds} seconds"
        )


async def _copy(source: Database, target: Database) -> dict[str, int]:
    """Copy in one transaction on either side, and compare before the commit. Raises `CopyRefused`."""
    copied = {}
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(_snapshot(source))
        new = await stack.enter_async_context(target.transaction())
        for table in metadata.sorted_tables:
            count = (await new.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()
            if count > (1 if table.name in _WITH_ONE_ROW else 0):
                raise CopyRefused(f"--to: is not empty: {table.name} holds rows. Give a new database")
        for table in reversed(metadata.sorted_tables):
            await new.execute(sa.delete(table))  # of what migrations have written
        for table in metadata.sorted_tables:
            if table in _OF_PROCESSES:
                continue
            wanted = await _digest(table, old, copy_to=new)
            await _continue_numbers(table, old, new)
            if wanted != await _digest(table, new):
                raise CopyRefused(f"--to: {table.name} does not read as it was written")
            copied[table.name] = wanted[0]
        await _refuse_if_used(source)
    return copied


@asynccontextmanager
async def _snapshot(source: Database) -> AsyncIterator[AsyncConnection]:
    async with source.read() as connection:
        if not source.is_sqlite:
            await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield connection


async def _digest(
    table: sa.Table, connection: AsyncConnection, *, copy_to: AsyncConnection | None = None
) -> tuple[int, str]:
    """The number of the rows and their digest; the rows are copied on the way if there is a target."""
    digest, count = hashlib.sha256(), 0
    async for rows in _rows(table, connection):
        if copy_to is not None:
            await copy_to.execute(sa.insert(table), rows)
        digest.update(b"".join(_digested(rows)))
        count += len(rows)
    return count, digest.hexdigest()


async def _rows(table: sa.Table, connection: AsyncConnection) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows in the order of the primary key, some at a time."""
    columns = [_exact(column, connection.dialect) for column in table.columns]
    result = await connection.stream(sa.select(*columns).order_by(*table.primary_key))
    numbers = [column.name for column in table.columns if type(column.type) is sa.Numeric]
    async for part in result.mappings().partitions(_ROWS_AT_ONCE):
        rows = [dict(row) for row in part]
        for row in rows:
            row |= {name: Decimal(str(row[name])) for name in numbers if row[name] is not None}
        yield rows


def _exact(column: sa.Column[Any], dialect: sa.Dialect) -> sa.ColumnElement[Any]:
    """The column; of PostgreSQL's exact numbers all digits."""
    if type(column.type) is sa.Numeric and dialect.name == "postgresql":
        return sa.type_coerce(column, sa.Numeric(asdecimal=True)).label(column.name)
    return column


def _digested(rows: list[dict[str, Any]]) -> Iterator[bytes]:
    # SQLite has no exact numbers: both sides compare what it can hold.
    for row in rows:
        values = (float(value) if isinstance(value, Decimal) else value for value in row.values())
        yield repr(tuple(values)).encode(errors="surrogatepass")


async def _continue_numbers(table: sa.Table, old: AsyncConnection, new: AsyncConnection) -> None:
    """Let the target number new rows from where the source is: no number is used again, though its row be removed."""
    column = table.autoincrement_column
    if column is None:
        return
    newest = sa.select(sa.func.coalesce(sa.func.max(column), 0))
    names: Mapping[str, str] = {"table": table.name, "column": column.name}
    if old.dialect.name == "postgresql":
        last = await old.scalar(sa.text("SELECT pg_sequence_last_value(CAST(" + _SEQUENCE + " AS regclass))"), names)
    else:
        last = await old.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :table"), names)
    last = max(last or 0, (await old.execute(newest)).scalar_one())
    if not last:
        return
    if new.dialect.name == "postgresql":
        await new.execute(sa.text("SELECT setval(" + _SEQUENCE + ", :last)"), {**names, "last": last})
    elif table.dialect_options["sqlite"]["autoincrement"]:
        await new.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :table"), names)
        await new.execute(sa.text("INSERT INTO sqlite_sequence VALUES (:table, :last)"), {**names, "last": last})


_SEQUENCE: Final = "pg_get_serial_sequence(:table, :column)"
