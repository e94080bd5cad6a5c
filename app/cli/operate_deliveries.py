"""`rivya-receiver deliveries …`: what an operator can do with deliveries that are stored."""

from collections import Counter as Tally
from datetime import datetime
from typing import Annotated

import typer

from app.cli.operate import Desk, carry_out
from app.ledger.models import Outcome
from app.operations.replay import Chosen, Replayed
from app.rivya.parsing import read_iso

deliveries = typer.Typer(no_args_is_help=True, help="Deliveries that are stored.")


def _moment(text: str) -> datetime:
    moment = read_iso(text)
    if moment is None:
        message = f"got {text!r}; give a time such as 2026-05-11T00:00:00Z"
        raise typer.BadParameter(message)
    return moment


@deliveries.command("replay")
def replay(
    event_id: Annotated[str | None, typer.Argument(help="The event to replay.")] = None,
    since: Annotated[
        datetime | None, typer.Option(parser=_moment, metavar="TIME", help="Received then or later (ISO 8601).")
    ] = None,
    until: Annotated[datetime | None, typer.Option(parser=_moment, metavar="TIME", help="Received before.")] = None,
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
    tally: Tally[str] = Tally()
    async for replayed in desk.replay.apply(chosen) if applies else desk.replay.rehearse(chosen):
        result = _result(replayed)
        tally[result] += 1
        typer.echo(f"{replayed.delivery.event_id}: was {replayed.delivery.outcome}, {_told(replayed, result)}")
    if not tally:
        typer.echo("no stored delivery is chosen by that", err=True)
        raise typer.Exit(1)
    summary = ", ".join(f"{count} {result}" for result, count in sorted(tally.items()))
    typer.echo(f"replayed: {summary}" if applies else f"would be: {summary}; nothing was written, --apply writes")


def _result(replayed: Replayed) -> str:
    if replayed.recorded is not None:
        return str(replayed.recorded.outcome)
    return "skipped"


def _told(replayed: Replayed, result: str) -> str:
    recorded = replayed.recorded
    if recorded is None:
        is_gone = replayed.delivery.body_pruned_at is not None
        return "skipped: its body was pruned" if is_gone else "skipped: it tells no generation's status"
    generation_id = recorded.generation.id if recorded.generation is not None else "none"
    if recorded.transition is None:
        return f"{result}: generation {generation_id} stays as it is"
    step = recorded.transition
    return f"{result}: generation {generation_id} {step.from_status or 'unknown'} -> {step.to_status}"
