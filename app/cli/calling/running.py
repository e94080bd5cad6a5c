"""Runs one call from the command line: finds the receiver, calls, and turns what became of it into an exit status."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, NoReturn
from uuid import uuid4

import orjson
import typer
import uvloop

from app.cli.calling.failures import CallFailed
from app.cli.calling.receiver import Receiver, calling
from app.cli.calling.table import plain
from app.cli.calling.target import Target, TargetInvalid, load_target

SUCCEEDED, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Act = Callable[[Receiver], Awaitable[int]]
"""Calls, prints, and returns the exit status. May raise `CallFailed`."""


def run(act: Act, *, as_json: bool) -> NoReturn:
    """Call, and exit: 0 succeeded, 1 failed, 2 the command or its variables make no sense."""
    try:
        target = load_target()
    except TargetInvalid as error:
        typer.echo(str(error), err=True)
        sys.exit(USAGE)
    try:
        status = uvloop.run(_call(act, target))
    except CallFailed as failure:
        typer.echo(f"failed: {plain(str(failure))}", err=True)
        if as_json:
            say_json(failure.document)
        status = FAILED
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def say(told: Mapping[str, Any], show: Callable[[Mapping[str, Any]], str], *, as_json: bool) -> None:
    """Print an answer: as JSON, or as `show` writes it for people."""
    if as_json:
        say_json(told)
    else:
        typer.echo(show(told))


def say_json(told: object) -> None:
    """Print JSON in one line."""
    typer.echo(orjson.dumps(told).decode())


def new_key() -> str:
    """An Idempotency-Key."""
    return str(uuid4())


async def _call(act: Act, target: Target) -> int:
    async with calling(target) as receiver:
        return await act(receiver)
