"""The command `migrate`: brings the database to this release's schema, tells how far it is, or prints the SQL."""

import logging
import sys

import typer
import uvloop
from alembic.util import CommandError

from app.cli.client.output import print_json, shown_wait
from app.core import logs, migrations
from app.core.database import Database
from app.core.errors import DatabaseUnavailable
from app.core.setting_sources import SettingsInvalid
from app.core.settings import load_database

_DONE, _FAILED, _USAGE = 0, 1, 2


def migrate(*, only_check: bool, only_sql: bool, down_to: str | None, as_json: bool) -> int:
    """Migrate the database of DATABASE_URL; no other setting is needed.

    The exit status is 1 if that fails or the database isn't at the wanted revision, 2 for invalid settings.
    """
    logs.configure("console", least=logging.WARNING)
    try:
        database = Database(load_database().database_url)
    except SettingsInvalid as error:
        return _refuse(str(error), _USAGE)
    try:
        return uvloop.run(_run(database, only_check=only_check, only_sql=only_sql, down_to=down_to, as_json=as_json))
    except DatabaseUnavailable as error:
        return _refuse(f"DATABASE_URL: the database can't be reached ({error.reason or 'no answer'})", _FAILED)
    except migrations.TableTaken as error:
        return _refuse(f"DATABASE_URL: {error}", _FAILED)
    except CommandError as error:
        return _refuse(f"{error}; this release knows {', '.join(sorted(migrations.known()))}", _FAILED)


async def _run(database: Database, *, only_check: bool, only_sql: bool, down_to: str | None, as_json: bool) -> int:
    try:
        with shown_wait(f"for the database at {database.url.render_as_string(hide_password=True)}"):
            before = after = await migrations.current(database) if database.exists else None
        if only_sql:
            typer.echo(migrations.migration_sql(database.url.get_backend_name(), since=before), nl=False)
            return _DONE
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
    return _DONE if is_done else _FAILED


def _refuse(message: str, status: int) -> int:
    sys.stderr.write(f"{message}\n")
    return status
