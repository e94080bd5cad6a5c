"""A ledger on a database of the test's, and what is in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Table

from app.core.database import Database
from app.fastpath.settlement import SettlingRecord
from app.ledger.recorder import Changes, Recorder
from tests.support.rows import table_rows

GRACE = timedelta(seconds=60)


def first_poll(_model: str | None, now: datetime) -> datetime:
    return now + GRACE


class LedgerHarness:
    """A ledger, its database, and a look at its tables."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.changes = Changes()
        self.ledger = Recorder(self.database, first_poll=first_poll, changes=self.changes, on_postgres=SettlingRecord)

    async def rows(self, table: Table) -> list[dict[str, Any]]:
        return await table_rows(self.database, table)


@asynccontextmanager
async def open_ledger(url: str) -> AsyncIterator[LedgerHarness]:
    room = LedgerHarness(url)
    try:
        yield room
    finally:
        await room.database.dispose()
