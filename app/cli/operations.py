"""What the operator's commands share: settings, a migrated database, and one place where errors become lines."""

import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvloop

from app.core import logs
from app.core.clock import Clock, SystemClock
from app.core.database import Database
from app.core.errors import DatabaseUnavailable, ServiceError
from app.core.settings import Settings, SettingsInvalid, load
from app.ledger.models import Outcome
from app.ledger.recorder import Changes, Recorder
from app.operations.commands import Orders
from app.operations.replay import Chosen, Replay, Replayed
from app.polling.schedule import Schedule
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError
from app.rivya.parsing import read_iso

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

    ledger = Recorder(database, first_poll=first_poll, changes=Changes())
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


# `rivya-receiver deliveries …`: what an operator can do with deliveries that are stored.


deliveries = typer.Typer(no_args_is_help=True, help="Deliveries that are stored.")


def _read_time(text: str) -> datetime:
    time = read_iso(text)
    if time is None:
        message = f"got {text!r}; give a time such as 2026-05-11T00:00:00Z"
        raise typer.BadParameter(message)
    return time


@deliveries.command("replay")
def replay(
    event_id: Annotated[str | None, typer.Argument(help="The event to replay.")] = None,
    since: Annotated[
        datetime | None, typer.Option(parser=_read_time, metavar="TIME", help="Received then or later (ISO 8601).")
    ] = None,
    until: Annotated[datetime | None, typer.Option(parser=_read_time, metavar="TIME", help="Received before.")] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="Only those kept with this outcome.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write; without it, only say what would happen.")] = False,
) -> None:
    """Take stored deliveries through the ledger again, oldest first, as reports of the operator."""
    chosen = Chosen(event_id=event_id, since=since, until=until, outcome=outcome)
    if chosen == Chosen():
        message = "name an EVENT_ID, or choose with --since, --until or --outcome"
        raise typer.BadParameter(message)
    carry_out(lambda desk: _replay(desk, chosen, applies=apply))


async def _replay(desk: Desk, chosen: Chosen, *, applies: bool) -> None:
    counts: Counter[str] = Counter()
    async for replayed in desk.replay.apply(chosen) if applies else desk.replay.dry_run(chosen):
        result = _result(replayed)
        counts[result] += 1
        typer.echo(f"{replayed.delivery.event_id}: was {replayed.delivery.outcome}, {_describe(replayed, result)}")
    if not counts:
        typer.echo("no stored delivery is chosen by that", err=True)
        raise typer.Exit(1)
    summary = ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))
    typer.echo(f"replayed: {summary}" if applies else f"would be: {summary}; nothing was written, --apply writes")


def _result(replayed: Replayed) -> str:
    if replayed.recorded is not None:
        return str(replayed.recorded.outcome)
    return "skipped"


def _describe(replayed: Replayed, result: str) -> str:
    recorded = replayed.recorded
    if recorded is None:
        is_gone = replayed.delivery.body_pruned_at is not None
        return "skipped: its body was pruned" if is_gone else "skipped: it tells no generation's status"
    generation_id = recorded.generation.id if recorded.generation is not None else "none"
    if recorded.transition is None:
        return f"{result}: generation {generation_id} stays as it is"
    step = recorded.transition
    return f"{result}: generation {generation_id} {step.from_status or 'unknown'} -> {step.to_status}"


# `rivya-receiver generations poll|forget`: what an operator can order about one generation.


GenerationId = Annotated[str, typer.Argument(metavar="ID", help="Rivya's id of the generation.")]


def attach(group: typer.Typer) -> None:
    """Add the operator's commands to the group `generations`."""
    group.command("poll")(poll)
    group.command("forget")(forget)


def poll(generation_id: GenerationId) -> None:
    """Ask Rivya about a generation now, and record what it says as a report of the operator."""
    carry_out(lambda desk: _poll(desk, generation_id))


def forget(
    generation_id: GenerationId,
    even_open: Annotated[bool, typer.Option("--open", help="Also if its outcome isn't known yet.")] = False,
) -> None:
    """Remove a generation, its history and the bodies of its deliveries and its create; its events change nothing."""
    carry_out(lambda desk: _forget(desk, generation_id, even_open=even_open))


async def _poll(desk: Desk, generation_id: str) -> None:
    recorded = await desk.orders.poll(generation_id)
    status = recorded.generation.status if recorded.generation is not None else "unknown"
    typer.echo(f"{generation_id}: {status} ({recorded.outcome})")


async def _forget(desk: Desk, generation_id: str, *, even_open: bool) -> None:
    await desk.orders.forget(generation_id, even_open=even_open)
    typer.echo(f"{generation_id}: forgotten")
