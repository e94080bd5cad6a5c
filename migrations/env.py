"""Runs migrations: in a connection handed over by the service, on DATABASE_URL for `alembic`, or as SQL only."""

import asyncio
import os
from typing import Any, Literal

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.types import TypeEngine

import app.core.audit
import app.core.leases
import app.endpoint.repository
import app.intake.rejections
import app.ledger.tables
import app.notifications.tables
import app.operations.alarms
import app.operations.replicas
import app.ratelimit.limiter
import app.submission.store
import app.tokens.spending  # noqa: F401 - each import adds its tables to the metadata
from app.core.database import Database, UtcDateTime, metadata
from app.core.database_url import normal_url
from app.core.migrations import VERSION_TABLE


def render_item(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:  # noqa: ANN401 - alembic's own signature
    """Write our column type as what it is in SQL, so that a migration never changes with the code."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def compare_type(
    _context: object, _inspected: object, _metadata: object, _inspected_type: TypeEngine[Any], wanted: TypeEngine[Any]
) -> bool | None:
    """SQLite does not tell a Moment from another date; nothing to compare."""
    return False if isinstance(wanted, UtcDateTime) else None


def run(connection: Connection) -> None:
    """Migrate within `connection`, in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render_item,
        compare_type=compare_type,
        transactional_ddl=True,
    )
    if connection.dialect.name == "postgresql":
        # A migration that can't have its lock must not make everybody queue behind it.
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    with context.begin_transaction():
        context.run_migrations()


async def run_from_command_line() -> None:
    """`alembic upgrade head` and its like."""
    try:
        database = Database(normal_url(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///./receiver.db")))
    except ValueError as error:
        raise CommandError(f"DATABASE_URL: {error}") from None
    async with database.transaction() as connection:
        await connection.run_sync(run)
    await database.dispose()


handed_over: Connection | None = context.config.attributes.get("connection")
if context.is_offline_mode():
    context.configure(dialect_name=context.config.attributes["dialect"], version_table=VERSION_TABLE)
    context.run_migrations()
elif handed_over is not None:
    run(handed_over)
else:
    asyncio.run(run_from_command_line())
