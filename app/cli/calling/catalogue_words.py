"""`models`, `credits` and `usage`: what there is, what is left, and who spent it."""

from typing import Annotated

import typer

from app.cli.calling import shown
from app.cli.calling.receiver import Receiver
from app.cli.calling.running import SUCCEEDED, AsJson, run, say
from app.cli.calling.table import cell


def models(as_json: AsJson = False) -> None:
    """List the models."""

    async def act(receiver: Receiver) -> int:
        say(await receiver.get("/models"), shown.models, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


def credits_left(as_json: AsJson = False) -> None:
    """Show the credits that are left."""

    async def act(receiver: Receiver) -> int:
        say(await receiver.get("/credits"), lambda told: cell(told.get("current_credits")), as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


def usage(
    first: Annotated[str | None, typer.Option("--from", help="A day or a whole hour; 30 days ago if left out.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="A day or a whole hour, not included; or now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sum generations and credits by token, model and day."""

    async def act(receiver: Receiver) -> int:
        say(await receiver.get("/usage", **{"from": first, "to": to}), shown.usage, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)
