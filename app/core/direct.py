"""Connections to PostgreSQL without SQLAlchemy between, for the few statements that are sent for every delivery.

SQLAlchemy's own work on a statement and its arrays costs several times what PostgreSQL's does; here the driver gets
constant text and whole columns. Everything else goes through `app.core.database`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from app.core.database_errors import is_of_connection, translated
from app.core.postgres_connection import Connection

_SECONDS_FOR_CONNECTION = 5.0
_SECONDS_TO_CLOSE = 2.0

# Planned once, and never as a scan: a plan made while a table was empty would scan it for ever after, and these
# statements have but one good plan, by their keys.
DIRECT_SETTINGS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}


class Direct:
    """At most `most` connections, opened when first needed, kept until they break."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, most: int = 4) -> None:
        self._connect = connect
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(most)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection within a transaction, committed when the block ends, rolled back when it raises.

        Raises `DatabaseUnavailable` for what is the database's state and not the statement's fault.
        """
        with translated():
            async with self._connection() as connection:
                await connection.execute("BEGIN")
                try:
                    yield connection
                except Exception as error:
                    if not is_of_connection(error):  # else it would be waited for once more
                        await connection.execute("ROLLBACK")
                    raise
                await connection.execute("COMMIT")

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        """The rows of one statement, which is a transaction of its own. Raises like `transaction`."""
        with translated():
            connection = await self._acquire()
            try:
                rows: list[Any] = await connection.fetch(statement, *arguments)
            except BaseException as error:
                self._give_back(connection, error)
                raise
            self._give_back(connection)
        return rows

    async def is_read_only(self) -> bool:
        """Whether writes are refused, as by a standby; what leads there is dropped then. Raises like `transaction`."""
        [[is_read_only]] = await self.fetch("SHOW transaction_read_only")
        if is_read_only == "on":
            self._drop_idle()
        return bool(is_read_only == "on")

    async def close(self) -> None:
        """Close the connections that are idle; the others are closed by those who use them."""
        idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await connection.close(timeout=_SECONDS_TO_CLOSE)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = await self._acquire()
        try:
            yield connection
        except BaseException as error:
            self._give_back(connection, error)
            raise
        self._give_back(connection)

    async def _acquire(self) -> Connection:
        if self._free.locked():
            async with asyncio.timeout(_SECONDS_FOR_CONNECTION):
                await self._free.acquire()
        else:
            await self._free.acquire()  # at once
        try:
            return await self._take()
        except BaseException:
            self._free.release()
            raise

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._connect()

    def _give_back(self, connection: Connection, error: BaseException | None = None) -> None:
        self._free.release()  # first: nothing that raises may keep the permit
        if error is not None and is_of_connection(error):
            connection.terminate()
            self._drop_idle()  # they lead to the same server, and are older
        elif connection.is_closed():
            return
        elif connection.is_in_transaction() or not isinstance(error, Exception | None):
            connection.terminate()  # in the middle of something, for all we know
        else:
            self._idle.append(connection)

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().terminate()
