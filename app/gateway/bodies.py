"""The bodies of relayed calls: small ones read whole, so that they can be sent again, forms passed through."""

from collections.abc import AsyncIterator
from typing import Final

from app.gateway.caller import Caller
from app.gateway.caller_errors import BodyTooLarge
from app.gateway.form_meter import FormMeter
from app.gateway.headers import Headers, declared_length, value_of

MOST_BYTES: Final = 1024 * 1024
"""Of a chat turn; files travel by themselves."""


async def whole(caller: Caller, headers: Headers) -> bytes:
    """A chat turn's body. Raises `BodyTooLarge`, unread where its length is announced, and what `Caller` does."""
    if (declared_length(headers) or 0) > MOST_BYTES:
        raise BodyTooLarge(f"The body is larger than {MOST_BYTES} bytes.")
    return await caller.body(most_bytes=MOST_BYTES)


def form(caller: Caller, headers: Headers) -> AsyncIterator[bytes]:
    """A form as it comes, never more than one piece of it in memory. Raises `BodyTooLarge` as soon as that is known."""
    meter = FormMeter(value_of(headers, b"content-type") or "", declared=declared_length(headers))
    meter.begin()
    return _metered(caller, meter)


async def _metered(caller: Caller, meter: FormMeter) -> AsyncIterator[bytes]:
    async for piece in caller.pieces():
        meter.feed(piece)
        yield piece
