"""Uploaded files: looked at, measured, and kept by what they are; their bytes are not kept."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.sandbox.bounded import Bounded
from app.sandbox.clock import Clock, stamp
from app.sandbox.errors import RivyaError, invalid, missing
from app.sandbox.forms import Part
from app.sandbox.ids import new_id
from app.sandbox.sniffing import media_type_of

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
