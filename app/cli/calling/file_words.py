"""`files upload`."""

import mimetypes
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.calling import shown
from app.cli.calling.receiver import Receiver
from app.cli.calling.running import SUCCEEDED, AsJson, run, say

words = typer.Typer(no_args_is_help=True, help="Files to refer to in generations and chats.")


class Kind(StrEnum):
    """What Rivya takes."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


@words.callback()
def files() -> None:
    """Files to refer to in generations and chats."""


@words.command()
def upload(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, show_default=False)
    ],
    kind: Annotated[Kind | None, typer.Option(help="Told by the file's name if left out.")] = None,
    model: Annotated[str | None, typer.Option(help="The model that it is for.")] = None,
    client_request_id: Annotated[str | None, typer.Option(help="Your own trace id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file, and show what to call it."""
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    given = {"kind": kind or _kind_of(media_type), "model": model, "client_request_id": client_request_id}
    fields = {name: str(value) for name, value in given.items() if value is not None}

    async def act(receiver: Receiver) -> int:
        with path.open("rb") as file:
            say(await receiver.upload(file, path.name, media_type, fields=fields), shown.file, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


def _kind_of(media_type: str) -> Kind:
    kind = media_type.partition("/")[0]
    if kind not in tuple(Kind):
        message = "the file's name does not tell what it is; say image, video or audio"
        raise typer.BadParameter(message, param_hint="--kind")
    return Kind(kind)
