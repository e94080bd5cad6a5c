"""Callbacks of one job: the URLs that are called once, with the outcome of one generation."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from sqlalchemy import Executable

from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import ServiceError
from app.ledger.tables import callbacks

Check = Callable[[str], Awaitable[None]]
"""Raises `UrlRejected` for a URL that may not be called."""


class CallbackNotConfigured(ServiceError):
    """400: callbacks need RECEIVER_CALLBACK_SECRET."""

    status = 400
    code = "callback_not_configured"

    def __init__(self) -> None:
        super().__init__("This receiver makes no callbacks: its operator has to set RECEIVER_CALLBACK_SECRET.")


class Callbacks:
    """Checks and stores callbacks. `check` is None where RECEIVER_CALLBACK_SECRET is not set."""

    def __init__(self, database: Database, clock: Clock, *, check: Check | None) -> None:
        self._database = database
        self._clock = clock
        self._check = check

    async def check(self, url: str) -> None:
        """Raise `CallbackNotConfigured`, or `UrlRejected` for a URL that may not be called."""
        if self._check is None:
            raise CallbackNotConfigured
        await self._check(url)

    async def set(self, generation_id: str, url: str | None, *, token: str) -> None:
        """Have this URL called, in place of another one of the token; None changes nothing.

        Raises `DatabaseUnavailable`.
        """
        if url is None:
            return
        async with self._database.transaction() as connection:
            await connection.execute(
                insert_callback(self._database, generation_id, url, token=token, now=self._clock.now())
            )


def insert_callback(database: Database, generation_id: str, url: str, *, token: str, now: datetime) -> Executable:
    """The statement that stores a callback, in place of another one of the same token."""
    statement = database.insert(callbacks).values(generation_id=generation_id, token=token, url=url, created_at=now)
    key = [callbacks.c.generation_id, callbacks.c.token]
    return statement.on_conflict_do_update(index_elements=key, set_={"url": url})
