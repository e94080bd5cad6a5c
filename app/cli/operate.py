"""What the operator's commands share: settings, a migrated database, and one place where errors become lines."""

import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import typer
import uvloop

from app.core import logs
from app.core.clock import Clock, SystemClock
from app.core.database import Database
from app.core.errors import DatabaseUnavailable, ServiceError
from app.core.settings import Settings, SettingsInvalid, load
from app.ledger.changes import Changes
from app.ledger.recorder import Ledger
from app.operations.commands import Orders
from app.operations.replay import Replay
from app.polling.schedule import Schedule
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError

FAILED, USAGE = 1, 2


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts of the service that an operator works with, on the database directly; none of its loops run."""

    replay: Replay
    orders: Orders


def carry_out(work: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    """Do `work` at a desk and exit: 0 done, 1 not done, 2 bad settings; an error is one line that says what to do."""
    try:
        settings = load()
    except SettingsInvalid as error:
        _end(str(error), USAGE)
    logs.configure(settings.receiver_log_format)  # what an operator changes is in the log, too
    database = Database(settings.database_url)
    if database.is_sqlite and not Path(str(database.url.database)).exists():
        _end(f"DATABASE_URL: {database.url.render_as_string()} does not exist", FAILED)
    try:
        uvloop.run(_at_desk(settings, database, work))
    except DatabaseUnavailable as error:
        _end(f"DATABASE_URL: the database can't be reached, or is not migrated ({error.reason or 'no answer'})", FAILED)
    except ServiceError as error:
        _end(error.message, FAILED)
    except RivyaError as error:
        code = getattr(error, "code", None)
        _end(f"Rivya: {type(error).__name__}{f' ({code})' if code else ''}; nothing was changed", FAILED)


async def _at_desk(settings: Settings, database: Database, work: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    async with open_desk(settings, database, SystemClock()) as desk:
        await work(desk)


@asynccontextmanager
async def open_desk(settings: Settings, database: Database, clock: Clock) -> AsyncIterator[Desk]:
    """A desk on `database`, which is closed in the end."""
    schedule = Schedule(grace=settings.receiver_poll_grace)
    key = settings.rivya_api_key.get_secret_value()
    limiter = RateLimiter(database, clock, rate=settings.receiver_poll_rate, api_key=key)

    def first_poll(_model: str | None, now: datetime) -> datetime:
        return schedule.first_poll(now, category=None)

    ledger = Ledger(database, first_poll=first_poll, changes=Changes())
    try:
        async with RivyaClient(settings.rivya_base_url, key) as client:
            yield Desk(
                Replay(database, ledger, clock=clock, first_poll=first_poll),
                Orders(database, ledger, client=client, limiter=limiter, clock=clock),
            )
    finally:
        await database.dispose()


def _end(message: str, status: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(status)
