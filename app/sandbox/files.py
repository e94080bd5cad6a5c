"""Uploaded files: what is known about each; their bytes are not stored."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Annotated, Any, Literal

from multipart import MultipartError, MultipartParser, MultipartPart, parse_options_header
from pydantic import BaseModel, Field
from starlette.requests import Request

from app.sandbox.accounts import Records
from app.sandbox.clock import new_id, stamp
from app.sandbox.responses import RivyaError, invalid, validate
from app.sandbox.settings import Context

_MEGABYTE = 1024 * 1024
LIMITS = {"image": 10 * _MEGABYTE, "video": 50 * _MEGABYTE, "audio": 10 * _MEGABYTE}
"""The documented limits in bytes, by kind."""
TRACE_LENGTH = 128
"""The documented limit of a `client_request_id`, in characters."""
_IN_MEMORY = 128 * _MEGABYTE


async def read_form(request: Request) -> dict[str, MultipartPart]:
    """The parts of the form by name. Raises `validation_failed`."""
    _, options = parse_options_header(request.headers.get("content-type", ""))
    if "boundary" not in options:
        raise invalid("The body must be multipart/form-data.")
    stream = BytesIO(await request.body())
    try:
        parser = MultipartParser(stream, options["boundary"], spool_limit=_IN_MEMORY, memory_limit=_IN_MEMORY)
        return {part.name: part for part in parser}
    except MultipartError as failure:
        raise invalid(f"The form can't be read: {failure}.") from None


class UploadFields(BaseModel):
    """The fields beside the file."""

    kind: Literal["image", "video", "audio"]
    client_request_id: Annotated[str, Field(max_length=TRACE_LENGTH)] | None = None


@dataclass(frozen=True)
class File:
    """One upload."""

    id: str
    account: str
    kind: str
    name: str
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

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self.by_id: Records[File] = Records("File", context.keep)

    def upload(self, account: str, form: dict[str, MultipartPart]) -> File:
        """The new file. Raises `validation_failed`, or `payload_too_large` above the limit of its kind."""
        texts = validate(dict[str, str], {name: part.raw for name, part in form.items() if name != "file"})
        fields = validate(UploadFields, texts)
        part, kind = form.get("file"), fields.kind
        if part is None or part.filename is None:
            raise invalid("file is required and must be a file.")
        if part.size > LIMITS[kind]:
            raise RivyaError("payload_too_large", f"A file of kind {kind} has at most {LIMITS[kind]} bytes.")
        media_type = media_type_of(part.raw)
        if media_type is None or not media_type.startswith(f"{kind}/"):
            raise invalid(f"The file is not of kind {kind}: it is {media_type or 'of no known media type'}.")
        file = File(
            id=new_id("file"),
            account=account,
            kind=kind,
            name=part.filename,
            media_type=media_type,
            size=part.size,
            sha256=hashlib.sha256(part.raw).hexdigest(),
            created_at=self._clock.now(),
            client_request_id=fields.client_request_id,
        )
        self.by_id[file.id] = file
        return file


_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)
_RIFF_FORMS = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}


def media_type_of(content: bytes) -> str | None:
    """`image/png`, `video/mp4`, `audio/mpeg`, … by the first bytes; None for anything else."""
    if content[:4] == b"RIFF":
        return _RIFF_FORMS.get(content[8:12])
    if content[4:8] == b"ftyp":
        return "audio/mp4" if content[8:11] == b"M4A" else "video/mp4"
    return next((kind for beginning, kind in _BEGINNINGS if content.startswith(beginning)), None)
