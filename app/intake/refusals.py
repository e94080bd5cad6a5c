"""Refused deliveries: counted, logged in sums, and kept as a bounded sample without their bodies."""

import hashlib
from collections import Counter as Tally
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import delete, func, insert, select

from app.core.database import Database
from app.core.ids import uuid7
from app.intake.tables import rejections

REFUSALS = Counter("receiver_refusals", "Deliveries refused, by reason.", ["reason"])

_PER_FLUSH = 20
_KEPT = 1000
_SECONDS_BETWEEN_FLUSHES = 1.0

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One delivery that was not accepted."""

    reason: str
    rejected_at: datetime
    endpoint_id: str | None
    body: bytes
    header_names: Sequence[bytes]
    remote_address: str | None


class Refusals:
    """Takes note of refusals without any I/O; `turn` writes the sample."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sample: deque[Refusal] = deque(maxlen=_PER_FLUSH)
        self._tally: Tally[str] = Tally()

    def note(self, refusal: Refusal) -> None:
        """Count it, and keep it as a sample if there is room."""
        REFUSALS.labels(refusal.reason).inc()
        self._tally[refusal.reason] += 1
        self._sample.append(refusal)

    async def newest(self, most: int) -> list[dict[str, Any]]:
        """The newest of the sample, newest first, header names as a list. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            found = await connection.execute(select(rejections).order_by(rejections.c.id.desc()).limit(most))
            return [{**row, "header_names": row["header_names"].split(",")} for row in found.mappings()]

    async def turn(self) -> float:
        """Log what came since the last turn, store the newest of it, drop the oldest that are stored."""
        if not self._tally:
            return _SECONDS_BETWEEN_FLUSHES
        log.warning("deliveries.refused", **self._tally)
        self._tally.clear()
        rows = [_row(refusal) for refusal in self._sample]
        self._sample.clear()
        kept = select(rejections.c.id).order_by(rejections.c.id.desc()).limit(_KEPT).subquery()
        oldest = select(func.min(kept.c.id)).scalar_subquery()
        async with self._database.transaction() as connection:
            await connection.execute(insert(rejections), rows)
            await connection.execute(delete(rejections).where(rejections.c.id < oldest))
        return _SECONDS_BETWEEN_FLUSHES


def _row(refusal: Refusal) -> dict[str, Any]:
    names = sorted({name.decode("latin-1")[:100] for name in refusal.header_names})
    return {
        "id": str(uuid7(refusal.rejected_at)),
        "rejected_at": refusal.rejected_at,
        "reason": refusal.reason,
        "endpoint_id": refusal.endpoint_id,
        "size": len(refusal.body),
        "header_names": ",".join(names[:50]).replace("\x00", ""),
        "remote_address": refusal.remote_address,
        "digest": hashlib.sha256(refusal.body).hexdigest(),
    }
