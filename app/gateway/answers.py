"""Small answers of Rivya's, read whole: those that are kept or looked into on their way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from app.core.errors import ServiceError
from app.gateway.headers import Headers, back
from app.rivya.errors import RivyaUnavailable
from app.rivya.transport import Passage

MOST_BYTES: Final = 4 * 1024 * 1024


class AnswerUnusable(ServiceError):
    """Rivya's answer broke off, or is far larger than any list of models."""

    status = 502
    code = "rivya_unreadable"


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """What came back; `headers` has names in lower case, `relayed` those that the caller gets."""

    status: int
    headers: Mapping[str, str]
    relayed: Headers
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300

    def response(self, *more: tuple[bytes, bytes]) -> Response:
        """The same answer for a caller, with some headers more."""
        response = Response(self.body, self.status)
        response.raw_headers = [*self.relayed, *more]
        return response


async def read_whole(passage: Passage) -> WholeAnswer:
    """Read an answer to its end. Raises `AnswerUnusable`."""
    body = bytearray()
    try:
        async for piece in passage.pieces():
            body += piece
            if len(body) > MOST_BYTES:
                raise AnswerUnusable(f"Rivya's answer is larger than {MOST_BYTES} bytes.")
    except RivyaUnavailable:
        raise AnswerUnusable("Rivya's answer broke off.") from None
    return WholeAnswer(passage.status, passage.headers, back(passage.raw_headers), bytes(body))
