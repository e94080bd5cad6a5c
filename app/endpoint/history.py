"""What became of our endpoints, step by step: written in the transaction of the step itself."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.endpoint.tables import endpoint_history

_MOST = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One step, repair or observation."""

    endpoint_id: str
    recorded_at: datetime
    event: str
    detail: str | None


async def note(
    connection: AsyncConnection, endpoint_id: str, *, event: str, now: datetime, detail: str | None = None
) -> None:
    """Write an entry within the transaction of what it tells of."""
    row = {"endpoint_id": endpoint_id, "recorded_at": now, "event": event, "detail": detail}
    await connection.execute(insert(endpoint_history).values(**row))


async def newest(database: Database, *, most: int = _MOST) -> list[Entry]:
    """The newest entries of all endpoints, newest first. Raises `DatabaseUnavailable`."""
    columns = endpoint_history.c
    told = select(columns.endpoint_id, columns.recorded_at, columns.event, columns.detail)
    async with database.read() as connection:
        found = await connection.execute(told.order_by(columns.sequence.desc()).limit(most))
        return [Entry(*row) for row in found]
