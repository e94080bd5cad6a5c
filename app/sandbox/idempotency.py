"""The same `Idempotency-Key` with the same body gets the first answer again; with another body, a refusal."""

import hashlib
from typing import Any

import orjson

from app.sandbox.bounded import Bounded
from app.sandbox.errors import RivyaError

Answer = dict[str, Any]


class Idempotency:
    """The answers already given, per account and key; a refused request leaves its key unused."""

    def __init__(self, keep: int) -> None:
        self._answers: Bounded[tuple[str, str], tuple[str, Answer]] = Bounded(keep)

    def find(self, account: str, key: str, body: Answer) -> Answer | None:
        """The first answer, or None for a new key; raises `idempotency_conflict`."""
        known = self._answers.get((account, key))
        if known is None:
            return None
        if known[0] != _fingerprint(body):
            raise RivyaError("idempotency_conflict", "This Idempotency-Key was used with another body.")
        return known[1]

    def remember(self, account: str, key: str, body: Answer, *, answer: Answer) -> None:
        """Keep the answer for the next time."""
        self._answers[account, key] = (_fingerprint(body), answer)


def _fingerprint(body: Answer) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
