"""`rivya-receiver generations poll|forget`: what an operator can order about one generation."""

from typing import Annotated

import typer

from app.cli.operate import Desk, carry_out

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
