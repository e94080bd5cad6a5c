"""Limits the size of the file in a multipart form while the form is relayed; pure."""

from typing import Final

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from app.core.errors import BodyTooLarge

_MEGABYTE: Final = 1024 * 1024
LIMITS: Final = {"image": 10 * _MEGABYTE, "video": 50 * _MEGABYTE, "audio": 10 * _MEGABYTE}
"""Rivya's documented limits, in bytes, by kind; a megabyte is 1024 x 1024 here, so as not to refuse too early."""
LARGEST: Final = max(LIMITS.values())
_BESIDES: Final = 64 * 1024
"""Bytes that a form may have in addition to its file."""
_LONGEST_KIND: Final = 64


class UploadLimit:
    """Counts the bytes of the part named `file` and reads the part named `kind`, in any order.

    A body that can't be parsed as a form is only counted; Rivya reports what is wrong with it. Between two pieces
    it keeps at most a boundary or a line of a part's head in memory.
    """

    def __init__(self, content_type: str, *, declared: int | None) -> None:
        media_type, options = parse_options_header(content_type)
        boundary = options.get("boundary") if media_type == "multipart/form-data" else None
        self._parser = PushMultipartParser(boundary, header_charset="latin-1") if boundary else None
        self._declared = declared
        self._part = ""
        self.kind = b""
        """What the part `kind` says, as far as it has come."""
        self._is_kind_known = False
        self.size = 0
        """Bytes of the file so far."""
        self._total = 0

    def feed(self, piece: bytes) -> None:
        """Count the next piece of the form. Raises `BodyTooLarge`."""
        self._total += len(piece)
        if self._parser is not None and piece:
            try:
                for event in self._parser.parse(piece):
                    self._take(event)
            except MultipartError:
                self._parser = None
        self.check()

    def _take(self, event: MultipartSegment | bytes | None) -> None:
        if isinstance(event, MultipartSegment):
            self._part = event.name
        elif event is None:
            self._is_kind_known = self._is_kind_known or self._part == "kind"
        elif self._part == "file":
            self.size += len(event)
        elif self._part == "kind" and not self._is_kind_known:
            self.kind = (self.kind + event)[:_LONGEST_KIND]

    def check(self) -> None:
        """Compare what has come, or the declared length, with the limit. Raises `BodyTooLarge`."""
        kind = self.kind.decode("latin-1").strip() if self._is_kind_known else ""
        limit = LIMITS.get(kind, LARGEST)
        whole = max(self._total, self._declared or 0)
        if self.size > limit or whole > limit + _BESIDES:
            what = f"a file of kind {kind}" if kind in LIMITS else "a file"
            raise BodyTooLarge(f"file: {what} has at most {limit // _MEGABYTE} MB ({limit} bytes).")
