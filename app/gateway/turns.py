"""What a chat turn costs its token: reserved before it is sent, and counted by what Rivya's answer tells."""

import hashlib
from typing import Any, Final

from app.core.auth import Caller
from app.core.ids import request_id
from app.rivya.parsing import json_object, plausible_amount
from app.tokens.spending import Spending, check_model

_LONGEST_LINE: Final = 256 * 1024
_DEEPEST: Final = 4


class TurnCharge:
    """The charge of one turn. `begin` it, `feed` the answer's bytes, and `end` it whatever happens."""

    def __init__(self, spending: Spending, caller: Caller, body: bytes, *, key: str | None) -> None:
        """Raises `ModelNotAllowed`."""
        self._spending = spending
        self._caller = caller
        self._model = (json_object(body) or {}).get("model")
        check_model(caller, self._model)
        self._id = f"turn_{request_id()}"
        self._is_keyed = key is not None
        if key is not None:  # Rivya charges once for a key
            self._id = f"turn_{hashlib.sha256(f'{caller.name} {key}'.encode()).hexdigest()}"
        self._pending = bytearray()
        self._credits: float | None = None
        self.status: int | None = None
        """Rivya's, None while there is no answer."""
        self.is_sent = True
        """False: it certainly never reached Rivya."""

    async def begin(self) -> None:
        """Reserve the credits. Raises `TokenLimitReached`, `TokenRateLimited`."""
        await self._spending.begin_turn(self._caller, self._id, str(self._model))

    def feed(self, piece: bytes, *, is_event_stream: bool) -> None:
        """Look for the credits in the next bytes of the answer; later ones count."""
        self._pending += piece
        if not is_event_stream:
            return
        *lines, rest = bytes(self._pending).split(b"\n")
        self._pending = bytearray(rest[:_LONGEST_LINE])
        for line in lines:
            if line.startswith(b"data:"):
                self._read(line.removeprefix(b"data:"))

    async def end(self) -> None:
        """Count what it has cost: nothing where Rivya refused it, and what was reserved where that is not known."""
        self._read(bytes(self._pending).removeprefix(b"data:"))
        is_refused = not self.is_sent or (self.status is not None and 400 <= self.status < 500)
        await self._spending.end_turn(
            self._caller, self._id, 0 if is_refused else self._credits, is_keyed=self._is_keyed
        )

    def _read(self, text: bytes) -> None:
        amount = _credits_in(json_object(text), _DEEPEST)
        if amount is not None:
            self._credits = amount


def _credits_in(value: Any, depth: int) -> float | None:  # noqa: ANN401 - any JSON value
    """The final credits in a JSON value, else the reserved ones, where a member `credits` has them."""
    if not isinstance(value, dict) or depth == 0:
        return None
    amounts = value.get("credits")
    if isinstance(amounts, dict):
        for name in ("final", "reserved"):
            amount = plausible_amount(amounts.get(name))
            if amount is not None:
                return amount
    return next(filter(None, (_credits_in(member, depth - 1) for member in value.values())), None)
