"""Uploaded files: looked at, measured, and kept by what they are; their bytes are not kept."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from email.message import Message
from typing import Any

from starlette.requests import Request

from app.sandbox.clock import Bounded, Clock, new_id, stamp
from app.sandbox.responses import RivyaError, invalid, missing

# Reads `multipart/form-data`: named parts, each with its bytes.


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
    boundary = _BOUNDARY.match(request.headers.get("content-type", ""))
    if boundary is None:
        raise invalid("The body must be multipart/form-data.")
    pieces = (b"\r\n" + await request.body()).split(b"\r\n--" + boundary[1].encode())
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


_MEGABYTE = 1024 * 1024
LIMITS = {"image": 10 * _MEGABYTE, "video": 50 * _MEGABYTE, "audio": 10 * _MEGABYTE}
"""The documented limits in bytes, by kind."""
LONGEST_TRACE = 128


@dataclass(frozen=True)
class File:
    """One upload."""

    id: str
    account: str
    kind: str
    name: str | None
    media_type: str
    size: int
    sha256: str
    created_at: datetime
    client_request_id: str | None

    def as_json(self) -> dict[str, Any]:
        """The object; only `url`, `duration_token` and `file_id` are documented."""
        return {
            "file_id": self.id,
            "object": "file",
            "kind": self.kind,
            "name": self.name,
            "mime_type": self.media_type,
            "size_bytes": self.size,
            "url": f"https://media.example/uploads/{self.id}",
            "duration_token": None if self.kind == "image" else f"duration_{self.id}",
            "created_at": stamp(self.created_at),
        }


class Files:
    """The files of every account, oldest first."""

    def __init__(self, *, clock: Clock, keep: int) -> None:
        self._clock = clock
        self.by_id: Bounded[str, File] = Bounded(keep)

    def get(self, account: str, file_id: str) -> File:
        """One file of the account; raises `not_found`."""
        file = self.by_id.get(file_id)
        if file is None or file.account != account:
            raise missing("File")
        return file

    def upload(self, account: str, form: dict[str, Part]) -> File:
        """Take a file in; raises `validation_failed`, or `payload_too_large` above the limit of its kind."""
        part, kind, trace = form.get("file"), _text(form, "kind"), _text(form, "client_request_id")
        if part is None or part.filename is None:
            raise invalid("file is required and must be a file.")
        if kind not in LIMITS:
            raise invalid("kind must be image, video or audio.")
        if trace is not None and len(trace) > LONGEST_TRACE:
            raise invalid(f"client_request_id must have at most {LONGEST_TRACE} characters.")
        if len(part.content) > LIMITS[kind]:
            raise RivyaError("payload_too_large", f"A file of kind {kind} has at most {LIMITS[kind]} bytes.")
        file = File(
            id=new_id("file"),
            account=account,
            kind=kind,
            name=part.filename,
            media_type=_media_type(part.content, kind),
            size=len(part.content),
            sha256=hashlib.sha256(part.content).hexdigest(),
            created_at=self._clock.now(),
            client_request_id=trace,
        )
        self.by_id[file.id] = file
        return file


def _text(form: dict[str, Part], name: str) -> str | None:
    return form[name].text(name) if name in form else None


def _media_type(content: bytes, kind: str) -> str:
    media_type = media_type_of(content)
    if media_type is None or not media_type.startswith(f"{kind}/"):
        raise invalid(f"The file is not of kind {kind}: it is {media_type or 'no media that is known here'}.")
    return media_type


# Which kind of media some bytes are, by what they begin with and not by what their sender says.


_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)
_RIFF_FORMS = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}


def media_type_of(content: bytes) -> str | None:
    """`image/png`, `video/mp4`, `audio/mpeg`, …, or None for what is no media."""
    if content[:4] == b"RIFF":
        return _RIFF_FORMS.get(content[8:12])
    if content[4:8] == b"ftyp":
        return "audio/mp4" if content[8:11] == b"M4A" else "video/mp4"
    return next((kind for beginning, kind in _BEGINNINGS if content.startswith(beginning)), None)
