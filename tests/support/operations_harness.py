"""The parts that an operator's commands use, in this process, on a database of the test's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.cli.operations import OperatorContext, open_context
from app.core.clock import SystemClock
from app.core.database import Database
from app.core.settings import load
from app.sandbox.server import ServedSandbox
from tests.support.receivers import environment

NOBODY = "http://127.0.0.1:1"


@asynccontextmanager
async def at_desk(url: str, *, rivya: ServedSandbox | None = None) -> AsyncIterator[OperatorContext]:
    base_url = NOBODY if rivya is None else rivya.base_url
    settings = load(**{name.lower(): value for name, value in environment(base_url, url, 1).items()})
    database = Database(settings.database_url)
    try:
        async with open_context(settings, database, SystemClock()) as context:
            yield context
    finally:
        await database.dispose()
