"""Commands of an operator that work on the database directly: replay deliveries, poll and forget generations."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import typer
import uvloop
from sqlalchemy import select

from app.cli.client.output import fail, show, shown_wait
from app.core import logs
from app.core.audit import COMMAND_LINE, write_audit
from app.core.clock import Clock, SystemClock
from app.core.database import Database
from app.core.encryption import DecryptionFailed
from app.core.errors import DatabaseUnavailable, ServiceError
from app.core.setting_sources import SettingsInvalid
from app.core.settings import Settings, load
from app.ledger.models import DeliveryFilter
from app.ledger.recorder import Changes, Recorder
from app.ledger.serializers import render
from app.operations.commands import GenerationCommands, Replay
from app.polling.schedule import Schedule
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError

Work = Callable[[Settings, Database], Coroutine[Any, Any, bool]]


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """The parts of the service that these commands use. No background loop runs."""

    replay: Replay
    commands: GenerationCommands


def run_command(work: Work, *, act: str | None = None, target: str | None = None) -> NoReturn:
    """Run `work` and exit: 0 if it returns True, 1 if it returns False or fails, 2 for invalid settings.

    A failure is one line on standard error that says what to do. If the work is an `act`, a row in the audit comes
    first, so that none is without its row; changes of tokens write theirs.
    """
    try:
        settings = load()
    except SettingsInvalid as error:
        fail(str(error), status=2)
    logs.configure(settings.receiver_log_format, least=settings.receiver_log_level)
    database = Database(settings.database_url)
    if not database.exists:
        fail(f"DATABASE_URL: {database.url.render_as_string()} does not exist")
    try:
        is_done = uvloop.run(_run(settings, database, work, act=act, target=target))
    except DecryptionFailed as error:
        fail(f"RECEIVER_ENCRYPTION_KEYS: {error}; nothing was changed", status=2)
    except DatabaseUnavailable as error:
        fail(f"DATABASE_URL: the database can't be reached, or is not migrated ({error.reason or 'no answer'})")
    except ServiceError as error:
        fail(error.message)
    except RivyaError as error:
        code = getattr(error, "code", None)
        fail(f"Rivya: {type(error).__name__}{f' ({code})' if code else ''}; nothing was changed")
    raise typer.Exit(0 if is_done else 1)


def run_operation(
    work: Callable[[OperatorContext], Coroutine[Any, Any, bool]], *, act: str | None = None, target: str | None = None
) -> NoReturn:
    """Like `run_command`, for `work` that needs an `OperatorContext`."""

    async def run(settings: Settings, database: Database) -> bool:
        async with open_context(settings, database, SystemClock()) as context:
            return await work(context)

    run_command(run, act=act, target=target)


async def _run(settings: Settings, database: Database, work: Work, *, act: str | None, target: str | None) -> bool:
    try:
        with shown_wait(f"for the database at {database.url.render_as_string(hide_password=True)}"):
            async with database.transaction() as connection:
                if act is None:
                    await connection.execute(select(1))
                else:
                    await write_audit(connection, COMMAND_LINE, act, now=SystemClock().now(), target=target)
        return await work(settings, database)
    finally:
        await database.dispose()


@asynccontextmanager
async def open_context(settings: Settings, database: Database, clock: Clock) -> AsyncIterator[OperatorContext]:
    """The parts of the service on `database`."""
    first_poll = Schedule(grace=settings.receiver_poll_grace).first_poll
    key = settings.rivya_api_key.get_secret_value()
    limiter = RateLimiter(database, clock, rate=settings.receiver_poll_rate, api_key=key)
    ledger = Recorder(database, first_poll=first_poll, changes=Changes())
    async with RivyaClient(settings.rivya_base_url, key) as client:
        yield OperatorContext(
            Replay(database, ledger, clock=clock, first_poll=first_poll),
            GenerationCommands(database, ledger, client=client, limiter=limiter, clock=clock),
        )


async def replay(context: OperatorContext, chosen: DeliveryFilter, *, writes: bool, as_json: bool = False) -> bool:
    """Print what the chosen deliveries change, and change it if `writes`; False if there is no such delivery."""
    counts: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    async for replayed in context.replay.apply(chosen) if writes else context.replay.dry_run(chosen):
        counts[replayed.result] += 1
        delivery = replayed.delivery
        if as_json:
            about = {"event_id": delivery.event_id, "outcome": delivery.outcome, "received_at": delivery.received_at}
            shown.append({**about, "result": replayed.result, "effect": replayed.effect})
        else:
            typer.echo(f"{delivery.event_id}: was {delivery.outcome}, {replayed.effect}")
    if not counts:
        typer.echo("no stored delivery is chosen by that", err=True)
    summary = ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))
    text = f"replayed: {summary}" if writes else f"would be: {summary}; nothing was written, --apply writes"
    if counts or as_json:
        show({"object": "list", "data": shown, "applied": writes}, text, as_json=as_json)
    return bool(counts)


async def poll(context: OperatorContext, generation_id: str, *, as_json: bool = False) -> bool:
    """Print the status that Rivya returns now, and whether recording it changed anything."""
    with shown_wait("for Rivya's answer"):
        recorded = await context.commands.poll(generation_id)
    known: dict[str, Any] = {} if recorded.generation is None else render(recorded.generation)
    text = f"{generation_id}: {known.get('status', 'unknown')} ({recorded.outcome})"
    show({**known, "outcome": recorded.outcome}, text, as_json=as_json)
    return True


async def forget(context: OperatorContext, generation_id: str, *, even_open: bool, as_json: bool = False) -> bool:
    """Delete the generation and print that."""
    with shown_wait("for the database"):
        await context.commands.delete(generation_id, even_open=even_open)
    document = {"object": "generation", "id": generation_id, "deleted": True}
    show(document, f"{generation_id}: forgotten", as_json=as_json)
    return True
