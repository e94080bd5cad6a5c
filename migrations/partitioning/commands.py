"""What an operator can do about partitions; each raises `Refused` where the database is none of PostgreSQL's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.core.database_url import normal_url
from app.core.migrations import migrate
from app.operating.keeping import KEYS_KEPT

# A step that can't have its lock must not make everybody queue behind it; reading a big table may take its time.
_SETTINGS: Final = {"application_name": "rivya-receiver", "lock_timeout": "5s", "statement_timeout": "0"}


class Refused(Exception):
    """The command was not understood, or can't be done here; the text says what can."""


async def apply(url: str) -> None:
    """Partition the tables, or go on where an earlier attempt ended; the ordinary migrations are run before."""
    async with _connected(url) as connection:
        await migrate(url)
        await connection.run_sync(_go, "head")


async def undo(url: str) -> None:
    """Make whole tables of the partitions again. Copies all rows, and nothing is recorded meanwhile."""
    async with _connected(url) as connection:
        await connection.run_sync(_go, "base")


async def ahead(url: str, months: int) -> list[str]:
    """Make the months up to the one in so many months; the names of those that were not there."""
    async with _connected(url) as connection, connection.begin():
        made = await connection.execute(text("SELECT receiver_partitions_ahead(:months)"), {"months": months})
        return [f"made {name}" for name in made.scalars()]


async def drop(url: str, settled_before: datetime) -> list[str]:
    """Drop months that ended by then, unless something of a generation is in them that is open or was settled later.

    Their events stay known for `KEYS_KEPT`, as where the service itself prunes.
    """
    async with _connected(url) as connection:
        async with connection.begin():
            chosen = {"before": settled_before}
            dropped = list(
                (await connection.execute(text("SELECT receiver_partitions_drop(:before)"), chosen)).scalars()
            )
        async with connection.begin():
            kept = {"kept": KEYS_KEPT}
            forgotten = (await connection.execute(text("SELECT receiver_events_forget(:kept)"), kept)).scalar_one()
    return [*(f"dropped {name}" for name in dropped), f"forgot {forgotten} events"]


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(
        _postgres(url), poolclass=NullPool, hide_parameters=True, connect_args={"server_settings": _SETTINGS}
    )
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


def _postgres(url: str) -> str:
    if not url.startswith("postgres"):
        raise Refused("partitions are for PostgreSQL: DATABASE_URL names another database, or none")
    try:
        return normal_url(url)
    except ValueError as error:
        raise Refused(f"DATABASE_URL {error}") from error


def _go(connection: Connection, to: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    (command.upgrade if to == "head" else command.downgrade)(config, to)
