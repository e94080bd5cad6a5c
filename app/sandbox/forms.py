"""Reads `multipart/form-data`: named parts, each with its bytes."""

import re
from dataclasses import dataclass
from email.message import Message

from starlette.requests import Request

from app.sandbox.errors import invalid

_BOUNDARY = re.compile(r'multipart/form-data\b.*?;\s*boundary="?([^";,]{1,70})"?', re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """One part of a form; only files have a file name."""

    content: bytes
    filename: str | None = None

    def text(self, name: str) -> str:
        """The part as text; raises `validation_failed`."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            raise invalid(f"{name} must be text.") from None


async def read_form(request: Request) -> dict[str, Part]:
    """The parts by name, the last one of a name; raises `validation_failed`."""
    found = _BOUNDARY.match(request.headers.get("content-type", ""))
    if found is None:
        raise invalid("The body must be multipart/form-data.")
    pieces = (b"\r\n" + await request.body()).split(b"\r\n--" + found[1].encode())
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise invalid("The form ends before its last boundary.")
    return dict(_read_part(piece) for piece in pieces[1:-1])


def _read_part(piece: bytes) -> tuple[str, Part]:
    head, separator, content = piece.partition(b"\r\n\r\n")
    disposition = Message()
    for line in head.split(b"\r\n"):
        field, _, value = line.decode("utf-8", "replace").partition(":")
        if field.strip().lower() == "content-disposition":
            disposition["content-disposition"] = value.strip()
    name = disposition.get_param("name", header="content-disposition")
    if not separator or not isinstance(name, str):
        raise invalid("A part of the form has no name.")
    filename = disposition.get_param("filename", header="content-disposition")
    return name, Part(content, filename if isinstance(filename, str) else None)
