"""Limits the size of the file in a multipart form while the form is relayed; pure."""

import re
from typing import Final

from app.gateway.errors import BodyTooLarge

_MEGABYTE: Final = 1024 * 1024
LIMITS: Final = {"image": 10 * _MEGABYTE, "video": 50 * _MEGABYTE, "audio": 10 * _MEGABYTE}
"""Rivya's documented limits, in bytes, by kind; a megabyte is 1024 x 1024 here, so as not to refuse too early."""
LARGEST: Final = max(LIMITS.values())
_BESIDES: Final = 64 * 1024
"""Bytes that a form may have in addition to its file."""
_LONGEST_HEAD: Final = 16 * 1024
_LONGEST_KIND: Final = 64
_BOUNDARY: Final = re.compile(
    r'multipart/form-data\b.*?;\s*boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE
)
_NAME: Final = re.compile(rb'^content-disposition:[^\r\n]*?;\s*name="?([^";\r\n]*)"?', re.IGNORECASE | re.MULTILINE)


class FormMeter:
    """Counts the bytes of the part named `file` and reads the part named `kind`, in any order.

    A body that can't be parsed as a form is only counted; Rivya reports what is wrong with it. Between two pieces the
    meter keeps at most a boundary or a part's head in memory.
    """

    def __init__(self, content_type: str, *, declared: int | None) -> None:
        match = _BOUNDARY.match(content_type)
        self._delimiter = b"\r\n--" + (match[1] or match[2]).encode() if match else None
        self._declared = declared
        self._rest = bytearray(b"\r\n")  # a form may begin with its first boundary
        self._part: bytes | None = None
        self._is_in_head = False
        self._kind = b""
        self._is_kind_known = False
        self._size = 0
        self._total = 0

    def feed(self, piece: bytes) -> None:
        """Count the next piece of the form. Raises `BodyTooLarge`."""
        self._total += len(piece)
        self._rest += piece
        while self._step():
            pass
        self.check()

    def _step(self) -> bool:
        if self._delimiter is None:
            self._rest.clear()
            return False
        return self._read_head() if self._is_in_head else self._read_content(self._delimiter)

    def _read_content(self, delimiter: bytes) -> bool:
        end = self._rest.find(delimiter)
        if end < 0:
            self._take(max(len(self._rest) - len(delimiter) + 1, 0))
            return False
        self._take(end)
        del self._rest[: len(delimiter)]
        self._is_kind_known = self._is_kind_known or self._part == b"kind"
        self._is_in_head = True
        return True

    def _read_head(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if self._rest.startswith(b"--") or (end < 0 and len(self._rest) > _LONGEST_HEAD):
            self._delimiter = None  # the form has ended, or this is not a form
            return False
        if end < 0:
            return False
        match = _NAME.search(self._rest[: end + 2])
        self._part = match[1] if match else None
        del self._rest[: end + 4]
        self._is_in_head = False
        return True

    def _take(self, count: int) -> None:
        if self._part == b"file":
            self._size += count
        elif self._part == b"kind" and not self._is_kind_known:
            self._kind = (self._kind + bytes(self._rest[:count]))[:_LONGEST_KIND]
        del self._rest[:count]

    def check(self) -> None:
        """Compare what has come, or the declared length, with the limit. Raises `BodyTooLarge`."""
        kind = self._kind.decode("latin-1").strip() if self._is_kind_known else ""
        limit = LIMITS.get(kind, LARGEST)
        whole = max(self._total, self._declared or 0)
        if self._size > limit or whole > limit + _BESIDES:
            what = f"a file of kind {kind}" if kind in LIMITS else "a file"
            raise BodyTooLarge(f"file: {what} has at most {limit // _MEGABYTE} MB ({limit} bytes).")
